"""The variants of SEResNet: other defaults, no other code."""

from typing import Any, ClassVar

from mmse.models.blocks import SEBottleneck
from mmse.models.se_resnet import SEResNet
from mmse.registry import MODELS


@MODELS.register_module()
class SEResNetV1c(SEResNet):
    """ResNet-C with attention: a deep stem. Source: https://arxiv.org/abs/1812.01187."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(deep_stem=True, avg_down=False, **kwargs)


@MODELS.register_module()
class SEResNetV1d(SEResNet):
    """ResNet-D with attention: a deep stem and average pooling in the strided shortcuts.

    Source: https://arxiv.org/abs/1812.01187.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(deep_stem=True, avg_down=True, **kwargs)


@MODELS.register_module()
class SEResNeXt(SEResNet):
    """ResNeXt with attention, depths 50, 101 and 152. Source: https://arxiv.org/abs/1611.05431."""

    arch_settings: ClassVar = {
        depth: arch for depth, arch in SEResNet.arch_settings.items() if arch[0] is SEBottleneck
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get('dcn') is not None:
            # mmdet's and mmseg's ResNeXt read this key and ignore it.
            kwargs['dcn'] = {k: v for k, v in kwargs['dcn'].items() if k != 'fallback_on_stride'}
        super().__init__(*args, **kwargs)
