"""The two residual blocks with channel attention at the end of the residual branch.

Names of parameters, arguments and arithmetic are those of mmdet's and mmseg's ``BasicBlock`` and
``Bottleneck``: without attention the outputs are equal to the bit.
"""

import math
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_conv_layer, build_plugin_layer
from torch import nn

from mmse.models.residual import ResidualBlock, Settings
from mmse.models.resolve import Entry
from mmse.utils.errors import UserError

BN = {'type': 'BN'}


class SEBasicBlock(ResidualBlock):
    """The two-convolution block of ResNet-18 and -34, with attention.

    Args:
        inplanes: Input channels.
        planes: Output channels.
        stride: Stride of the first convolution.
        dilation: Dilation of the first convolution.
        downsample: The shortcut's projection; None for the identity.
        style: Accepted for a common signature; the block has one form.
        with_cp: Recompute the block in the backward pass to save memory.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        dcn: Must be None, as in mmdet and mmseg.
        plugins: Must be None, as in mmdet and mmseg.
        attention: What ``mmse.models.resolve.resolve_attention`` takes; None for no attention.
        init_cfg: MMEngine's initialisation config.
        fused: Compute last norm, attention, addition and relu as one where that is possible; see
            ``path``. ``'kernels'`` does it by the Triton kernels on GPUs.
        recompute: What is computed again in the backward pass; see ``mmse.models.recompute``.
        recompute: What is computed again in the backward pass; see ``mmse.models.recompute``.
        drop_path_rate: Probability that a sample skips the branch in training (stochastic depth).
    """

    expansion = 1
    last = 2

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = 'pytorch',
        with_cp: bool = False,
        conv_cfg: Settings | None = None,
        norm_cfg: Settings = BN,
        dcn: Settings | None = None,
        plugins: Sequence[Settings] | None = None,
        attention: Entry = None,
        init_cfg: Any = None,
        *,
        fused: bool | str = True,
        recompute: str | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        if dcn is not None or plugins is not None:
            raise UserError('dcn and plugins need the bottleneck block: depth 50, 101 or 152')
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.fused = fused
        self.recompute = recompute
        self.stride = stride
        self.dilation = dilation
        self.conv1 = build_conv_layer(
            conv_cfg,
            inplanes,
            planes,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            bias=False,
        )
        self.add_norm(norm_cfg, planes, 1)
        self.conv2 = build_conv_layer(conv_cfg, planes, planes, 3, padding=1, bias=False)
        self.add_norm(norm_cfg, planes, 2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.add_attention(attention, planes)
        self.add_drop_path(drop_path_rate)


class SEBottleneck(ResidualBlock):
    """The 1x1, 3x3, 1x1 block of ResNet-50 and deeper and of ResNeXt, with attention.

    Args:
        inplanes: Input channels.
        planes: A quarter of the output channels.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolution.
        downsample: The shortcut's projection; None for the identity.
        style: ``'pytorch'`` strides in the 3x3 convolution, ``'caffe'`` in the first 1x1.
        with_cp: Recompute the block in the backward pass to save memory.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        dcn: MMCV's deformable convolution in the place of the 3x3 one. ``fallback_on_stride``
            is popped from it, as mmdet does: of the blocks that share a dict the first takes it.
        plugins: MMCV plugins, each with ``cfg`` and ``position`` after_conv1, 2 or 3.
        attention: What ``mmse.models.resolve.resolve_attention`` takes; None for no attention. It
            comes right after the last norm, before the plugins of after_conv3.
        init_cfg: MMEngine's initialisation config.
        fused: Compute last norm, attention, addition and relu as one where that is possible; see
            ``path``. ``'kernels'`` does it by the Triton kernels on GPUs.
        recompute: What is computed again in the backward pass; see ``mmse.models.recompute``.
        recompute: What is computed again in the backward pass; see ``mmse.models.recompute``.
        drop_path_rate: Probability that a sample skips the branch in training (stochastic depth).
        groups: Groups of the 3x3 convolution (ResNeXt).
        base_width: Width of a group at ``base_channels`` planes (ResNeXt).
        base_channels: Channels of the first stage, which ``base_width`` refers to.
    """

    expansion = 4
    last = 3

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Module | None = None,
        style: str = 'pytorch',
        with_cp: bool = False,
        conv_cfg: Settings | None = None,
        norm_cfg: Settings = BN,
        dcn: dict[str, Any] | None = None,
        plugins: Sequence[Settings] | None = None,
        attention: Entry = None,
        init_cfg: Any = None,
        *,
        fused: bool | str = True,
        recompute: str | None = None,
        drop_path_rate: float = 0.0,
        groups: int = 1,
        base_width: int = 4,
        base_channels: int = 64,
    ) -> None:
        super().__init__(init_cfg)
        if style not in ('pytorch', 'caffe'):
            raise UserError(f"style={style!r} given; allowed: 'pytorch', 'caffe'")
        if dcn is not None and conv_cfg is not None:
            raise UserError('conv_cfg must be None where dcn is given')
        self.with_cp = with_cp
        self.fused = fused
        self.recompute = recompute
        self.stride = stride
        self.dilation = dilation
        self.style = style
        out_channels = planes * self.expansion
        width = (
            planes if groups == 1 else math.floor(planes * (base_width / base_channels)) * groups
        )
        stride1, stride2 = (1, stride) if style == 'pytorch' else (stride, 1)
        deformable = dcn is not None and not dcn.pop('fallback_on_stride', False)

        self.conv1 = build_conv_layer(
            conv_cfg, inplanes, width, kernel_size=1, stride=stride1, bias=False
        )
        self.add_norm(norm_cfg, width, 1)
        self.conv2 = build_conv_layer(
            dcn if deformable else conv_cfg,
            width,
            width,
            kernel_size=3,
            stride=stride2,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.add_norm(norm_cfg, width, 2)
        self.conv3 = build_conv_layer(conv_cfg, width, out_channels, kernel_size=1, bias=False)
        self.add_norm(norm_cfg, out_channels, 3)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.plugin_names = {
            f'after_conv{i}': self._add_plugins(plugins or (), f'after_conv{i}', channels)
            for i, channels in ((1, width), (2, width), (3, out_channels))
        }
        self.add_attention(attention, out_channels)
        self.add_drop_path(drop_path_rate)

    @property
    def norm3(self) -> nn.Module:
        """Norm after the third convolution, the branch's last."""
        return self.norm(3)

    def _add_plugins(self, plugins: Sequence[Settings], position: str, channels: int) -> list[str]:
        names = []
        for plugin in plugins:
            if plugin['position'] not in ('after_conv1', 'after_conv2', 'after_conv3'):
                raise UserError(
                    f'plugins: position={plugin["position"]!r} given; '
                    "allowed: 'after_conv1', 'after_conv2', 'after_conv3'"
                )
            if plugin['position'] != position:
                continue
            cfg = dict(plugin['cfg'])
            postfix = cfg.pop('postfix', '')
            name, layer = build_plugin_layer(cfg, in_channels=channels, postfix=postfix)
            if hasattr(self, name):
                raise UserError(
                    f'plugins: two of type {cfg["type"]!r} in one block; give them a postfix'
                )
            self.add_module(name, layer)
            names.append(name)
        return names
