"""The config language of attention: presets, validation, one entry a block.

Whatever a config says (a preset's name, a dict, lists over stages and blocks) is resolved here to
one plain dict a block, in which every key has an effect. Two configs mean the same attention if and
only if their resolved forms are equal.
"""

import difflib
import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from typing_extensions import TypedDict

from mmse.utils.errors import UserError


class AttentionSettings(TypedDict, total=False):
    """The keys of an attention dict; see ``mmse.models.ChannelAttention``."""

    squeeze: str
    fusion: str
    reduction: int
    min_hidden: int
    act: str
    gate: str
    temperature: float
    learnable_temperature: bool
    residual: bool
    alpha: float
    learnable_alpha: bool
    bias: bool


DEFAULTS: AttentionSettings = {
    'squeeze': 'avg+max',
    'fusion': 'softmax',
    'reduction': 16,
    'min_hidden': 4,
    'act': 'silu',
    'gate': 'sigmoid',
    'temperature': 1.0,
    'learnable_temperature': False,
    'residual': False,
    'alpha': 1.0,
    'learnable_alpha': False,
    'bias': True,
}

CHOICES = {
    'squeeze': ('avg', 'max', 'avg+max'),
    'fusion': ('softmax', 'sum'),
    'act': ('silu', 'relu'),
    'gate': ('sigmoid', 'hardsigmoid'),
}

# What each preset changes of DEFAULTS; the forms that the method went through, oldest first.
PRESETS: dict[str, AttentionSettings] = {
    'se': {'squeeze': 'avg', 'act': 'relu', 'min_hidden': 1},
    'se_silu': {'squeeze': 'avg', 'min_hidden': 1},
    'se_max': {'squeeze': 'max', 'act': 'relu', 'min_hidden': 1},
    'se_avgmax': {'fusion': 'sum', 'act': 'relu', 'min_hidden': 1},
    'se_safe': {'squeeze': 'avg', 'act': 'relu'},
    'se_stable': {'squeeze': 'avg'},
    'se_avgmax_stable': {'fusion': 'sum'},
    'se_gated': {'fusion': 'sum'},
    'sepp': {'fusion': 'sum'},
    'sepp_v2': {},
    'sepp_v2_residual': {'residual': True, 'learnable_alpha': True},
}


def _one_of(given: Any, allowed: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    return f'{given!r} is not {what}{hint}; allowed: {", ".join(map(repr, allowed))}'


def _check_value(key: str, value: Any, where: str) -> None:
    place = f'{where}.{key}'
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise UserError(f'{place}: {_one_of(value, CHOICES[key], f"a {key}")}')
    elif isinstance(DEFAULTS[key], bool):  # type: ignore[literal-required]
        if not isinstance(value, bool):
            raise UserError(f'{place}: {value!r} given; allowed: True or False')
    elif key in ('reduction', 'min_hidden'):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f'{place}: {value!r} given; allowed: an integer >= 1')
    else:
        finite = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if key == 'temperature' and not (finite and value > 0):
            raise UserError(f'{place}: {value!r} given; allowed: a finite number > 0')
        if not finite:
            raise UserError(f'{place}: {value!r} given; allowed: a finite number')


def _idle_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """The keys that the forward pass would not use, each with the reason."""
    idle = {}
    if settings['squeeze'] != 'avg+max':
        idle['fusion'] = f'squeeze={settings["squeeze"]!r} leaves nothing to fuse'
    if not settings['residual']:
        idle['alpha'] = idle['learnable_alpha'] = 'residual=False has no alpha'
    return idle


def resolve_attention(
    attention: str | Mapping[str, Any] | None, where: str = 'attention'
) -> dict[str, Any] | None:
    """Resolve one entry of the config language to the settings that have an effect.

    Args:
        attention: None, a preset's name, or a dict of settings, with ``preset`` as the start.
        where: The place in the config that errors and warnings name.

    Returns:
        None for no attention, else a dict with every key of ``AttentionSettings`` that the
        forward pass uses, in a fixed order.

    Raises:
        UserError: An unknown preset, key or value; it names the place and what is allowed.
    """
    if attention is None:
        return None
    preset_place = where
    if isinstance(attention, str):
        attention = {'preset': attention}
    elif isinstance(attention, Mapping):
        preset_place = f'{where}.preset'
    else:
        raise UserError(
            f'{where}: {attention!r} given; allowed: None, the name of a preset, or a dict'
        )
    given = {k: v for k, v in attention.items() if k != 'preset'}
    for key in given:
        if key not in DEFAULTS:
            raise UserError(f'{where}: {_one_of(key, ["preset", *DEFAULTS], "a key of attention")}')
    preset = attention.get('preset')
    if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
        raise UserError(f'{preset_place}: {_one_of(preset, list(PRESETS), "a preset")}')
    for key, value in given.items():
        _check_value(key, value, where)
    settings: dict[str, Any] = {**DEFAULTS, **(PRESETS[preset] if preset else {}), **given}
    settings['temperature'], settings['alpha'] = (
        float(settings['temperature']),
        float(settings['alpha']),
    )
    idle = _idle_keys(settings)
    dropped = [f'{key} ({reason})' for key, reason in idle.items() if key in given]
    if dropped:
        warnings.warn(f'{where}: without effect and dropped: {", ".join(dropped)}', stacklevel=2)
    return {key: settings[key] for key in DEFAULTS if key not in idle}


def resolve_stages(
    attention: Any, stage_blocks: Sequence[int], where: str = 'attention'
) -> list[list[dict[str, Any] | None]]:
    """Deal the ``attention`` of a backbone out to its blocks.

    Args:
        attention: One entry for every block, or a list with one entry a stage, in which a stage's
            entry may again be a list with one entry a block.
        stage_blocks: Number of blocks of each stage.
        where: The place in the config that errors and warnings name.

    Returns:
        The resolved form (see ``resolve_attention``) of each block of each stage.

    Raises:
        UserError: A list of the wrong length, or a wrong entry; it names the place.
    """
    if not _is_list(attention):
        one = resolve_attention(attention, where)
        return [[one] * blocks for blocks in stage_blocks]
    _check_length(attention, len(stage_blocks), where, 'stage')
    stages = []
    for i, (entry, blocks) in enumerate(zip(attention, stage_blocks, strict=True)):
        place = f'{where}[{i}]'
        if _is_list(entry):
            _check_length(entry, blocks, place, 'block')
            stages.append([resolve_attention(e, f'{place}[{j}]') for j, e in enumerate(entry)])
        else:
            stages.append([resolve_attention(entry, place)] * blocks)
    return stages


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_length(entries: Sequence[Any], expected: int, where: str, unit: str) -> None:
    if len(entries) != expected:
        raise UserError(
            f'{where}: a list of {len(entries)} given; allowed: {expected} entries, one a {unit}'
        )


def describe(settings: Mapping[str, Any] | None) -> str:
    """A resolved attention in a few words."""
    if settings is None:
        return 'no attention'
    temperature = f'T={settings["temperature"]:g}'
    parts = [
        settings['squeeze'] + (f' ({settings["fusion"]})' if 'fusion' in settings else ''),
        f'C/{settings["reduction"]} (min {settings["min_hidden"]}), {settings["act"]}',
        settings['gate'],
        temperature + (' learned' if settings['learnable_temperature'] else ''),
    ]
    if settings['residual']:
        learned = ' learned' if settings['learnable_alpha'] else ''
        parts.append(f'residual alpha={settings["alpha"]:g}{learned}')
    else:
        parts.append('multiplicative')
    if not settings['bias']:
        parts.append('no bias')
    return ', '.join(parts)
