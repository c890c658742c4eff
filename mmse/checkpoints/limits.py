"""What a conversion refuses because the target cannot represent it."""

import re
from collections.abc import Mapping

from torch import Tensor

from mmse.models.attention import ChannelAttention
from mmse.models.keys import parse
from mmse.models.settings import PRESETS, AttentionSettings
from mmse.utils.errors import UserError

# The modules that the ResNets of timm and mmpretrain have, by our names.
_OUTSIDE = re.compile(r'stem\.\d|(conv|bn)\d|fc')
_IN_BLOCK = re.compile(r'(conv|bn)\d|downsample\.\d|attention\.fc\d')
_TENSORS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
_HIDDEN = ('reduction', 'min_hidden')  # settings that the tensors' shapes tell

Blocks = Mapping[str, Mapping[str, Tensor]]


def check_standard(weights: Mapping[str, Tensor], blocks: Blocks, to: str) -> None:
    """Refuse tensors that the ResNets of a package do not have.

    Args:
        weights: Backbone and classifier, by our names.
        blocks: The attention's tensors of each block, without a prefix.
        to: 'timm' or 'mmpretrain'.

    Raises:
        UserError: It names the first key or block.
    """
    attended = any(blocks.values())
    for key in weights:
        block, module, tensor = parse(key)
        known = _IN_BLOCK if block else _OUTSIDE
        if not known.fullmatch(module) or tensor not in _TENSORS:
            raise UserError(f'the ResNets of {to} have no {key}')
    for name, tensors in blocks.items():
        if not attended:
            continue
        if not tensors:
            raise UserError(f'{name} has no attention; in {to} either all blocks have it or none')
        if missing := {'fc1.bias', 'fc2.bias'} - set(tensors):
            raise UserError(f'{name}.attention has no {min(missing)}, which {to} needs')
        if to == 'mmpretrain' and f'{name}.conv3.weight' not in weights:
            raise UserError(f"{name} is a basic block, which mmpretrain's SEResNet does not have")
        hidden, channels = tensors['fc1.weight'].shape[:2]
        if hidden != (expected := _rounded_width(channels, to)):
            raise UserError(
                f'{name}.attention has the hidden width {hidden}; in {to} {channels} channels have '
                f'{expected}'
            )


def _rounded_width(channels: int, package: str) -> int:
    """Hidden width in timm and mmpretrain: a 16th, rounded to a multiple of 8."""
    hidden = max(8, int(channels / 16 + 4) // 8 * 8)
    too_narrow = package == 'mmpretrain' and hidden < 0.9 * (channels // 16)
    return hidden + 8 * too_narrow


def check_foldable(blocks: Blocks) -> None:
    """Refuse attention that is not at the identity start.

    Args:
        blocks: The attention's tensors of each block, without a prefix.

    Raises:
        UserError: It names the first block.
    """
    for name, tensors in blocks.items():
        if any(tensors[key].any() for key in tensors if key.startswith('fc2.')):
            raise UserError(
                f'the attention of {name} is not at the identity start (fc2 is not zero): a plain '
                'ResNet cannot represent it'
            )


def check_se(modules: Mapping[str, ChannelAttention], to: str) -> None:
    """Refuse attention that differs from the preset ``se`` in more than its hidden width.

    Args:
        modules: The attention of each block.
        to: The package that has only ``se``.

    Raises:
        UserError: It names the first block and its differences.
    """
    classic = AttentionSettings(**PRESETS['se']).to_dict()
    for name, module in modules.items():
        others = {
            key: value
            for key, value in module.settings.to_dict().items()
            if key not in _HIDDEN and classic.get(key) != value
        }
        if others:
            what = ', '.join(f'{key}={value!r}' for key, value in others.items())
            raise UserError(f"{name}: {to} has only the preset 'se', and this attention has {what}")
