"""Channel attention, its blocks and its backbones. Needs torch, mmengine and mmcv only."""

from mmse.models.attention import ChannelAttention
from mmse.models.blocks import SEBasicBlock, SEBottleneck
from mmse.models.se_resnet import SEResNet
from mmse.models.settings import AttentionSettings
from mmse.models.variants import SEResNetV1c, SEResNetV1d, SEResNeXt

__all__ = [
    'AttentionSettings',
    'ChannelAttention',
    'SEBasicBlock',
    'SEBottleneck',
    'SEResNeXt',
    'SEResNet',
    'SEResNetV1c',
    'SEResNetV1d',
]
