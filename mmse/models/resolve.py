"""The config language of attention: from what a config says to the settings of each block.

Whatever a config says (a preset's name, a dict, lists over stages and blocks) is resolved here to
one ``AttentionSettings`` per block. Two configs mean the same attention if and only if their
resolved settings are equal.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmse.models.settings import KEYS, PRESETS, AttentionSettings, rule_of
from mmse.utils.errors import UserError
from mmse.utils.text import not_one_of

# What a config may say about one block.
Entry = str | Mapping[str, Any] | AttentionSettings | None


def resolve_attention(attention: Entry, where: str = 'attention') -> AttentionSettings | None:
    """Resolve one entry of the config language.

    Args:
        attention: None, a preset's name, or a dict of the keys of ``AttentionSettings``, with
            ``preset`` as the start; settings that are resolved stay as they are.
        where: The place in the config that errors and warnings name.

    Returns:
        The settings; None for no attention.

    Raises:
        UserError: An unknown preset, key or value; it names the place and what is allowed.
    """
    if attention is None or isinstance(attention, AttentionSettings):
        return attention
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
        if key not in KEYS:
            raise UserError(f'{where}: {not_one_of(key, ["preset", *KEYS], "a key of attention")}')
    preset = attention.get('preset')
    if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
        raise UserError(f'{preset_place}: {not_one_of(preset, list(PRESETS), "a preset")}')
    try:
        settings = AttentionSettings(**{**(PRESETS[preset] if preset else {}), **given})
    except UserError as error:
        raise UserError(f'{where}.{error}') from error
    idle = {key: rule_of(KEYS[key]).idle(settings) for key in given}
    dropped = [f'{key} ({reason})' for key, reason in idle.items() if reason]
    if dropped:
        warnings.warn(f'{where}: without effect and dropped: {", ".join(dropped)}', stacklevel=2)
    return settings


def resolve_stages(
    attention: Any, stage_blocks: Sequence[int], where: str = 'attention'
) -> list[list[AttentionSettings | None]]:
    """Deal the ``attention`` of a backbone out to its blocks.

    Args:
        attention: One entry for every block, or a list with one entry per stage, in which a stage's
            entry may again be a list with one entry per block.
        stage_blocks: Number of blocks of each stage.
        where: The place in the config that errors and warnings name.

    Returns:
        The settings of each block of each stage; see ``resolve_attention``.

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
            f'{where}: a list of {len(entries)} given; allowed: {expected} entries, one per {unit}'
        )
