"""Whether weights of an attention mean what a backbone takes them for.

The settings are saved with the weights, as one more tensor of each attention: tensors go wherever
weights go, whoever renames, copies or prefixes them, and into every format of files.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmse.models.keys import RECORD, parse
from mmse.models.settings import PRESETS, AttentionSettings, describe
from mmse.utils.errors import UserError

# The attention in the checkpoints of timm and mmpretrain.
CLASSIC = AttentionSettings(**PRESETS['se']).to_dict()
# The hidden width is told by the weights' shapes.
_SHAPES = ('reduction', 'min_hidden')


def record(settings: AttentionSettings) -> Tensor:
    """The settings as a tensor: the bytes of a JSON object."""
    # int32, which process groups can send and sums over several trainings do not overflow.
    text = json.dumps(settings.to_dict())
    return torch.tensor(list(text.encode()), dtype=torch.int32, device='cpu')


def read_record(value: Tensor) -> dict[str, Any] | None:
    """What ``record`` was given, as a dict; None if it cannot be read."""
    if value.is_meta:
        return None
    try:
        settings = json.loads(bytes(value.double().round().int().tolist()))
    except (ValueError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None


def split_records(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The weights of a backbone without the records, and the recorded settings by block."""
    kept, recorded = {}, {}
    for key, value in weights.items():
        parts = parse(key)
        if parts.attention != RECORD:
            kept[key] = value
        elif (settings := read_record(value)) is not None:
            recorded[parts.block] = settings
    return kept, recorded


def check_meaning(settings: AttentionSettings, recorded: Mapping[str, Any], where: str) -> None:
    """Refuse weights that were trained as another attention.

    What is learned is in the weights, so where it started does not count; a learned scalar may go
    on from a constant one that has the value at which it starts.

    Args:
        settings: The attention that the weights are for.
        recorded: The settings that were recorded with the weights, by ``to_dict``.
        where: What errors call the attention.

    Raises:
        UserError: They compute different functions, and it names both; or it is not known what
            theirs compute.
    """
    try:
        theirs = AttentionSettings(**recorded)
    except (TypeError, UserError):
        unknown = ', '.join(f'{key}={recorded[key]!r}' for key in sorted(recorded))
        raise UserError(
            f'{where}: the weights are of an attention that this version does not know '
            f'({unknown}): use the version of mmse that wrote them'
        ) from None
    if _function(theirs, settings) != _function(settings, theirs):
        raise UserError(
            f'{where}: the weights are of another attention ({describe(theirs)}) than the '
            f"backbone's ({describe(settings)}): set attention to that of the weights, or "
            'restart_attention=True to start it at the identity'
        )


def same_parameters(attention: nn.Module, given: Collection[str], prefix: str) -> None:
    """Refuse weights of an attention that has other parameters.

    Args:
        attention: The attention that the weights are for.
        given: Names of the weights, within the attention.
        prefix: What errors put before a name.

    Raises:
        UserError: A parameter or buffer is missing, or there is one too many; it names the first.
    """
    own = [name for name in attention.state_dict() if name != RECORD]
    remedy = (
        ': they are of another attention; set attention to theirs, or restart_attention=True to '
        'start it at the identity'
    )
    missing = [name for name in own if name not in given]
    if missing and {'fc1.weight', 'fc2.weight'} <= set(given):  # else it is a part
        raise UserError(f'the weights have no {prefix}{missing[0]}{remedy}')
    if extra := sorted(set(given) - set(own)):
        raise UserError(f'the backbone has no {prefix}{extra[0]}{remedy}')


def _function(settings: AttentionSettings, other: AttentionSettings) -> dict[str, Any]:
    """What the function of an attention follows from, apart from its weights."""
    function = settings.to_dict()
    for key in _SHAPES:
        function.pop(key)
    for value, learned in (('temperature', 'learnable_temperature'), ('alpha', 'learnable_alpha')):
        if getattr(settings, learned) and getattr(other, learned):
            function.pop(value, None)
        function.pop(learned, None)
    return function
