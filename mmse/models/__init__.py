"""Channel attention, its blocks and its backbones. Needs torch, mmengine and mmcv only."""

from mmse.models.attention import ChannelAttention
from mmse.models.blocks import SEBasicBlock, SEBottleneck
from mmse.models.se_resnet import SEResNet, SEResNetV1c, SEResNetV1d, SEResNeXt

__all__ = [
    'ChannelAttention',
    'SEBasicBlock',
    'SEBottleneck',
    'SEResNeXt',
    'SEResNet',
    'SEResNetV1c',
    'SEResNetV1d',
]
