"""Converting a backbone's weights for another package, or to a plain ResNet.

mmpretrain and timm have one kind of attention: ``se`` with hidden widths that are multiples of 8.
A plain ResNet has none, but attention at the identity start can be folded into its norms. What the
target cannot represent is refused. Our weights record their attention; for others it must be given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmse.checkpoints.limits import check_foldable, check_se, check_standard
from mmse.checkpoints.recorded import record_attention, recorded_attention
from mmse.checkpoints.safe_load import read_checkpoint, state_dict_of
from mmse.models.attention import ChannelAttention
from mmse.models.keys import RECORD, blocks_of, parse, stage_depths
from mmse.models.layouts import from_mmse, to_mmse
from mmse.models.meaning import record, split_records
from mmse.models.resolve import resolve_stages
from mmse.models.settings import describe
from mmse.utils.errors import UserError
from mmse.utils.files import replacing

LAYOUTS = ('mmse', 'mmpretrain', 'timm', 'plain')

_HEAD = re.compile(r'(head\.)?(fc\.(?:weight|bias))')


@dataclass
class Conversion:
    """Weights under other names, and what was done to get them.

    Args:
        weights: The new weights.
        source: The layout that they came from.
        dropped: Keys that are neither the backbone's nor a linear classifier's.
        attention: The ``attention`` of an SEResNet that the weights under our names fit; None if
            they have none or it is not known.
    """

    weights: dict[str, Tensor]
    source: str
    dropped: list[str]
    attention: Any


def convert_file(src: str | Path, dst: str | Path, to: str, attention: Any = None) -> Conversion:
    """Convert a checkpoint file; see ``convert``.

    Args:
        src: A checkpoint of torch or safetensors.
        dst: The file to write, with safetensors if that is its ending; it must not exist yet.
        to: One of ``LAYOUTS``.
        attention: As for ``convert``; by default what the config in ``src`` says.

    Raises:
        UserError: ``src`` cannot be read or converted, or ``dst`` is there already.
    """
    dst = Path(dst)
    if dst.exists():
        raise UserError(f'{dst} is there already: remove it or give another name')
    if not dst.parent.is_dir():
        raise UserError(f'{dst}: there is no folder {dst.parent}')
    checkpoint = read_checkpoint(src)
    try:
        recorded = recorded_attention(checkpoint)
        conversion = convert(state_dict_of(checkpoint), to, attention, recorded)
    except UserError as error:
        raise UserError(f'{src}: {error}') from error
    _write(conversion, dst, to)
    return conversion


def convert(
    weights: Mapping[str, Tensor], to: str, attention: Any = None, recorded: Any = None
) -> Conversion:
    """Rename a ResNet's weights, and its linear classifier's, to another layout.

    Into ``plain``, attention at the identity start (fc2 exactly zero) is folded: the weight and the
    bias of the branch's last norm are multiplied by the constant gain. With the gain 1/2 of a
    multiplicative gate that is exact in floating point; with 1 + alpha / 2 it is exact to rounding.

    Args:
        weights: A state dict of any layout, of a bare network or with ``backbone.`` prefixes.
        to: One of ``LAYOUTS``. Keys for mmpretrain have the prefixes of an ImageClassifier.
        attention: The ``attention`` of weights in our layout, as the user gives it.
        recorded: The same, as the config of their training gives it.

    Raises:
        UserError: The attention must be given, does not fit the weights, or has no counterpart in
            the target; it names the first such block or key.
    """
    source, named, dropped = _own_names(weights)
    ours, records = split_records(named)
    blocks = _attention_of(ours)
    if source == 'mmse':
        given = _agreed(attention, recorded or _by_stages(records, blocks), blocks)
    elif attention is None:
        given = _fitting_attention(blocks)
    else:
        raise UserError(f'--attention is for weights of mmse with attention; these are {source}')
    if to in ('mmpretrain', 'timm'):
        check_standard(ours, blocks, to)
    elif to == 'plain':
        check_foldable(blocks)
    attended = any(blocks.values())
    if attended and given is None and to != 'mmse':
        raise UserError(
            'the file does not say which attention its weights have: give --attention, a preset or '
            'KEY=VALUE,KEY=VALUE as in the config that they were trained with'
        )
    modules = _attention_modules(blocks, given) if attended and given is not None else {}
    if to in ('mmpretrain', 'timm'):
        check_se(modules, to)
    elif to == 'plain':
        ours = _fold(ours, modules)
    renamed = from_mmse(ours, to)
    if to == 'mmse':
        renamed |= {f'{name}.attention.{RECORD}': record(m.settings) for name, m in modules.items()}
    if to == 'mmpretrain':
        renamed = {('head.' if _HEAD.match(k) else 'backbone.') + k: v for k, v in renamed.items()}
    return Conversion(renamed, source, dropped, given if attended and to == 'mmse' else None)


def _own_names(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    """Layout, backbone and classifier (as ``fc``) under our names, and the keys of the rest."""
    whole = any(key.startswith('backbone.') for key in weights)
    kept: dict[str, Tensor] = {}
    dropped = []
    for key, value in weights.items():
        bare = key.removeprefix('backbone.')
        if (head := _HEAD.fullmatch(key)) is not None:
            kept[head[2]] = value
        elif (bare != key or not whole) and parse(bare).in_backbone:
            kept[bare] = value
        else:
            dropped.append(key)
    if not kept:
        raise UserError(f'no weights of a ResNet in it: the first keys are {dropped[:3]}')
    source, ours = to_mmse(kept)
    return source, ours, dropped


def _attention_of(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The attention's tensors, possibly none, of each block, in order."""
    blocks: dict[str, dict[str, Tensor]] = {name: {} for name in blocks_of(weights)}
    for key, value in weights.items():
        parts = parse(key)
        if parts.attention is not None:
            blocks[parts.block][parts.attention] = value
    return blocks


def _by_stages(records: Mapping[str, Any], blocks: Mapping[str, Any]) -> Any:
    """The ``attention`` of a backbone by the records in its weights; None without any."""
    names, depths = iter(blocks), stage_depths(blocks if records else ())
    return [[records.get(next(names)) for _ in range(depth)] for depth in depths] or None


def _agreed(attention: Any, recorded: Any, blocks: Mapping[str, Any]) -> Any:
    if attention is None or recorded is None:
        return recorded if attention is None else attention
    sizes = stage_depths(blocks)
    given, theirs = resolve_stages(attention, sizes, '--attention'), resolve_stages(recorded, sizes)
    for name, ours, other in zip(blocks, chain(*given), chain(*theirs), strict=True):
        if ours != other:
            raise UserError(f'--attention differs from the file: its {name} has {describe(other)}')
    return attention


def _fitting_attention(blocks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any] | None:
    """The form of ``se`` that has the hidden widths of timm's or mmpretrain's weights."""
    widths = [tuple(t['fc1.weight'].shape[1::-1]) for t in blocks.values() if t]
    if not widths:
        return None
    channels, hidden = max(widths)
    attention: dict[str, Any] = {'preset': 'se'}
    if (reduction := channels // hidden) != 16:
        attention['reduction'] = reduction
    if any(h > c // reduction for c, h in widths):
        attention['min_hidden'] = min(h for _, h in widths)
    return attention


def _attention_modules(
    blocks: Mapping[str, Mapping[str, Tensor]], attention: Any
) -> dict[str, ChannelAttention]:
    """The attention of each block that has one, with its weights."""
    flat = chain(*resolve_stages(attention, stage_depths(blocks)))
    modules = {}
    for (name, tensors), settings in zip(blocks.items(), flat, strict=True):
        if settings is None or not tensors:
            if settings is not None or tensors:
                raise UserError(
                    f'the attention {attention!r} does not fit: {name} has '
                    f'{"some" if tensors else "none"} in the weights'
                )
            continue
        module = ChannelAttention(len(tensors['fc2.weight']), **settings.to_dict())
        expected = {key: tuple(value.shape) for key, value in module.named_parameters()}
        found = {key: tuple(value.shape) for key, value in tensors.items()}
        for key in (*expected, *found):
            if expected.get(key) != found.get(key):
                raise UserError(
                    f'the attention {attention!r} does not fit: {name}.attention.{key} is '
                    f'{found.get(key, "missing")} in the weights, expected '
                    f'{expected.get(key, "none")}'
                )
        module.to(tensors['fc2.weight'].dtype).load_state_dict(tensors)
        modules[name] = module
    return modules


def _fold(
    weights: Mapping[str, Tensor], modules: Mapping[str, ChannelAttention]
) -> dict[str, Tensor]:
    """Multiply each branch's last norm by the gain of its attention, and leave that out."""
    folded = {key: value for key, value in weights.items() if parse(key).attention is None}
    for name, module in modules.items():
        index = 3 if f'{name}.conv3.weight' in weights else 2
        for key in folded:
            parts = parse(key)
            if parts.block == name and parts.is_norm(index) and parts.tensor in ('weight', 'bias'):
                folded[key] = folded[key] * module.identity_gain
    return folded


def _write(conversion: Conversion, dst: Path, to: str) -> None:
    weights = {key: value.contiguous() for key, value in conversion.weights.items()}
    with replacing(dst) as part:
        if dst.suffix == '.safetensors':
            save_file(weights, part, metadata={'format': 'pt'})
        else:
            torch.save(_wrapped(weights, conversion.attention, to), part)


def _wrapped(weights: dict[str, Tensor], attention: Any, to: str) -> dict[str, Any]:
    if to == 'mmpretrain':
        return {'state_dict': weights}
    if attention is not None:
        # Where a training would record it, so that the file can be converted back.
        return {'state_dict': weights, 'meta': record_attention(attention)}
    return weights
