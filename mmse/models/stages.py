"""The parts that a ResNet is put together from: stem, stages, and what a config deals to each."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import Sequential
from torch import nn

from mmse.utils.errors import UserError

Config = Mapping[str, Any]


def deep_stem_layers(
    in_channels: int, stem_channels: int, conv_cfg: Config | None, norm_cfg: Config
) -> nn.Sequential:
    """The three 3x3 convolutions of ResNet-C's stem; the first has stride 2."""
    half = stem_channels // 2
    layers: list[nn.Module] = []
    for c_in, c_out, stride in ((in_channels, half, 2), (half, half, 1), (half, stem_channels, 1)):
        conv = build_conv_layer(conv_cfg, c_in, c_out, 3, stride=stride, padding=1, bias=False)
        layers += [conv, build_norm_layer(norm_cfg, c_out)[1], nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def stage_plugins(
    plugins: Sequence[Config] | None, index: int, num_stages: int
) -> list[Config] | None:
    """The plugins of stage ``index``: those without ``stages``, or with a true entry for it."""
    if plugins is None:
        return None
    chosen = []
    for plugin in plugins:
        stages = plugin.get('stages')
        if stages is not None and len(stages) != num_stages:
            raise UserError(
                f'plugins: stages has {len(stages)} entries; allowed: one a stage, {num_stages}'
            )
        if stages is None or stages[index]:
            chosen.append(plugin)
    return chosen


def block_dilations(
    dilation: int, num_blocks: int, contract: bool, multi_grid: Sequence[int] | None
) -> list[int]:
    """The dilation of each block of a stage (mmseg's ``contract_dilation`` and ``multi_grid``)."""
    if multi_grid is not None:
        if len(multi_grid) < num_blocks:
            raise UserError(
                f'multi_grid: {len(multi_grid)} entries given; allowed: one a block of the last '
                f'stage, {num_blocks}'
            )
        return list(multi_grid[:num_blocks])
    first = dilation // 2 if contract and dilation > 1 else dilation
    return [first] + [dilation] * (num_blocks - 1)


def make_stage(
    block: type[nn.Module],
    inplanes: int,
    planes: int,
    dilations: Sequence[int],
    attention: Sequence[Config | None],
    *,
    stride: int,
    avg_down: bool,
    conv_cfg: Config | None,
    norm_cfg: Config,
    **block_args: Any,
) -> Sequential:
    """One stage of a ResNet.

    Args:
        block: SEBasicBlock or SEBottleneck.
        inplanes: Channels that enter the stage.
        planes: Planes of its blocks; their output has ``planes * block.expansion`` channels.
        dilations: Dilation of each block.
        attention: Resolved attention settings, or None, of each block.
        stride: Stride of the first block.
        avg_down: Stride in the shortcut by average pooling (ResNet-D).
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        block_args: What every block takes besides.
    """
    outplanes = planes * block.expansion  # type: ignore[attr-defined]
    downsample = None
    if stride != 1 or inplanes != outplanes:
        layers: list[nn.Module] = []
        if avg_down:
            layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
        conv_stride = 1 if avg_down else stride
        layers += [
            build_conv_layer(conv_cfg, inplanes, outplanes, 1, stride=conv_stride, bias=False),
            build_norm_layer(norm_cfg, outplanes)[1],
        ]
        downsample = nn.Sequential(*layers)
    blocks = []
    for j, (dilation, settings) in enumerate(zip(dilations, attention, strict=True)):
        first = {'stride': stride, 'downsample': downsample} if j == 0 else {}
        blocks.append(
            block(
                inplanes if j == 0 else outplanes,
                planes,
                dilation=dilation,
                attention=settings,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                **first,
                **block_args,
            )
        )
    return Sequential(*blocks)
