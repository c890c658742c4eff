"""The stem and the stages of a ResNet, and what a config gives to each stage and block."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import Sequential
from torch import nn

from mmse.models.blocks import SEBasicBlock, SEBottleneck
from mmse.models.residual import Settings
from mmse.models.settings import AttentionSettings
from mmse.utils.errors import UserError

Block = type[SEBasicBlock] | type[SEBottleneck]


def deep_stem_layers(
    in_channels: int, stem_channels: int, conv_cfg: Settings | None, norm_cfg: Settings
) -> nn.Sequential:
    """The three 3x3 convolutions of ResNet-C's stem; the first has stride 2."""
    half = stem_channels // 2
    layers: list[nn.Module] = []
    for c_in, c_out, stride in ((in_channels, half, 2), (half, half, 1), (half, stem_channels, 1)):
        conv = build_conv_layer(conv_cfg, c_in, c_out, 3, stride=stride, padding=1, bias=False)
        layers += [conv, build_norm_layer(norm_cfg, c_out)[1], nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def stage_plugins(
    plugins: Sequence[Settings] | None, index: int, num_stages: int
) -> list[Settings] | None:
    """The plugins of stage ``index``: those without ``stages``, or with a true entry for it."""
    if plugins is None:
        return None
    chosen = []
    for plugin in plugins:
        stages = plugin.get('stages')
        if stages is not None and len(stages) != num_stages:
            raise UserError(
                f'plugins: stages has {len(stages)} entries; allowed: one per stage, {num_stages}'
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
                f'multi_grid: {len(multi_grid)} entries given; allowed: one per block of the '
                f'last stage, {num_blocks}'
            )
        return list(multi_grid[:num_blocks])
    first = dilation // 2 if contract and dilation > 1 else dilation
    return [first] + [dilation] * (num_blocks - 1)


def make_stages(
    block: Block,
    attention: Sequence[Sequence[AttentionSettings | None]],
    *,
    inplanes: int,
    base_channels: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    contract_dilation: bool,
    multi_grid: Sequence[int] | None,
    dcn: Settings | None,
    stage_with_dcn: Sequence[bool],
    plugins: Sequence[Settings] | None,
    drop_path_rate: float,
    **shared: Any,
) -> Iterator[Sequential]:
    """The stages of a ResNet, in order.

    Args:
        block: SEBasicBlock or SEBottleneck.
        attention: The attention of each block of each stage.
        inplanes: Channels of the stem.
        base_channels: Planes of the first stage; each stage has twice as many as the one before.
        strides: Stride of each stage.
        dilations: Dilation of each stage.
        contract_dilation: Halve the dilation of each stage's first block.
        multi_grid: Dilation of each block of the last stage.
        dcn: MMCV's deformable convolution.
        stage_with_dcn: Which stages use it.
        plugins: MMCV plugins, each with the stages that it is for.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        **shared: What ``make_stage`` takes besides.
    """
    last = len(attention) - 1
    rates = _drop_path_rates(drop_path_rate, [len(settings) for settings in attention])
    dcn = None if dcn is None else dict(dcn)  # the blocks of all stages share one
    for i, settings in enumerate(attention):
        planes = base_channels * 2**i
        grid = multi_grid if i == last else None
        yield make_stage(
            block,
            inplanes,
            planes,
            block_dilations(dilations[i], len(settings), contract_dilation, grid),
            settings,
            stride=strides[i],
            dcn=dcn if stage_with_dcn[i] else None,
            plugins=stage_plugins(plugins, i, len(attention)),
            drop_path_rates=rates[i],
            **shared,
        )
        inplanes = planes * block.expansion


def _drop_path_rates(last: float, stage_blocks: Sequence[int]) -> list[list[float]]:
    """The rate of each block of each stage, growing linearly from 0 to the last block's."""
    steps = max(sum(stage_blocks) - 1, 1)
    rates = iter(last * k / steps for k in range(sum(stage_blocks)))
    return [[next(rates) for _ in range(blocks)] for blocks in stage_blocks]


def make_stage(
    block: Block,
    inplanes: int,
    planes: int,
    dilations: Sequence[int],
    attention: Sequence[AttentionSettings | None],
    *,
    stride: int,
    avg_down: bool,
    conv_cfg: Settings | None,
    norm_cfg: Settings,
    drop_path_rates: Sequence[float],
    block_args: Settings,
    **shared: Any,
) -> Sequential:
    """One stage of a ResNet.

    Args:
        block: SEBasicBlock or SEBottleneck.
        inplanes: Channels that enter the stage.
        planes: Planes of its blocks; their output has ``planes * block.expansion`` channels.
        dilations: Dilation of each block.
        attention: The attention of each block.
        stride: Stride of the first block.
        avg_down: Stride in the shortcut by average pooling (ResNet-D).
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        drop_path_rates: Stochastic depth of each block.
        block_args: What blocks of this kind alone take.
        **shared: What every block takes besides.
    """
    outplanes = planes * block.expansion
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
        first: dict[str, Any] = {'stride': stride, 'downsample': downsample} if j == 0 else {}
        blocks.append(
            block(
                inplanes if j == 0 else outplanes,
                planes,
                dilation=dilation,
                attention=settings,
                drop_path_rate=drop_path_rates[j],
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                **first,
                **shared,
                **block_args,
            )
        )
    return Sequential(*blocks)
