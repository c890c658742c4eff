"""Fitting a checkpoint's ResNet weights to a backbone with attention, when they are loaded.

Keys of other layouts are renamed (``mmse.models.layouts``). Attention that is in the backbone
but not in the checkpoint starts at the identity: with fc2 at zero the gate is 1/2 whatever the
input, so the branch is scaled by a known gain (1/2, or 1 + alpha / 2 with residual gating); dividing
the weight and the bias of the branch's last norm by it restores the function of the plain network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mmse.models.keys import parse
from mmse.models.layouts import to_mmse
from mmse.models.residual import ResidualBlock
from mmse.utils.errors import UserError

_REMEDY = '; set depth and widths of the backbone to those of the weights, or use other weights'
_GIVE_ATTENTION = '; give this block attention in the config, or use weights without attention'


class Backbone(Protocol):
    """What of an SEResNet the weights are fitted to."""

    res_layers: list[str]

    def state_dict(self) -> dict[str, Tensor]:
        """As of a module."""

    def attention_blocks(self) -> Iterator[tuple[str, ResidualBlock]]:
        """Name and module of each block that has attention."""


@dataclass
class LoadReport:
    """What loading a checkpoint into a backbone did.

    Args:
        layout: Whose checkpoint it was; see ``mmse.models.layouts``.
        loaded: Keys of the backbone that the checkpoint has.
        new: Keys that it lacks: attention, deformable offsets, plugins.
        unused: Keys of the checkpoint that the backbone lacks.
        identity: Blocks whose attention starts at the identity.
    """

    layout: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The counts, one line each."""
        lines = [
            f'weights of layout {self.layout}',
            f'  {len(self.loaded):5d} tensors loaded',
            f'  {len(self.new):5d} new',
            f'  {len(self.unused):5d} not used',
        ]
        if self.identity:
            lines.append(
                f'  identity start: the attention of {len(self.identity)} blocks begins as exactly '
                'no attention'
            )
        return '\n'.join(lines)

    def names(self) -> str:
        """Every key by what became of it."""
        return '\n'.join(
            f'{kind}: {", ".join(keys) or "none"}'
            for kind, keys in (('loaded', self.loaded), ('new', self.new), ('unused', self.unused))
        )


def adapt(
    backbone: Backbone, weights: dict[str, Tensor], preserve_pretrained: bool = True
) -> tuple[dict[str, Tensor], LoadReport]:
    """The complete state of a backbone from a checkpoint's weights.

    Args:
        backbone: An SEResNet; it is only read.
        weights: The backbone's weights in the checkpoint, of any layout.
        preserve_pretrained: Start attention that the checkpoint lacks at the identity; otherwise it
            keeps its random start.

    Returns:
        A state dict with every key of the backbone, and what was done.

    Raises:
        UserError: The weights do not fit; see ``check_fit``.
    """
    layout, given = check_fit(backbone, weights, preserve_pretrained)
    own = backbone.state_dict()
    state = {key: given.get(key, value) for key, value in own.items()}
    report = LoadReport(
        layout,
        loaded=[key for key in own if key in given],
        new=[k for k in own if k not in given and not k.endswith('num_batches_tracked')],
        unused=[key for key in given if key not in own],
    )
    if preserve_pretrained:
        for name, block in _new_attention(backbone, given):
            start_at_identity(state, name, block)
            report.identity.append(name)
    return state, report


def check_fit(
    backbone: Backbone, weights: dict[str, Tensor], preserve_pretrained: bool = True
) -> tuple[str, dict[str, Tensor]]:
    """Check that a checkpoint's weights fit a backbone.

    Args:
        backbone: An SEResNet; it is only read.
        weights: As for ``adapt``.
        preserve_pretrained: Whether attention that the checkpoint lacks will start at the
            identity.

    Returns:
        The layout of the weights, and the weights under our names.

    Raises:
        UserError: A weight is missing, of another shape or not finite, or the identity start does
            not exist (gain 0); it names the first such key.
    """
    if any(key.startswith('backbone.') for key in weights):
        prefix = len('backbone.')
        weights = {k[prefix:]: v for k, v in weights.items() if k.startswith('backbone.')}
    layout, given = to_mmse(weights)
    own = backbone.state_dict()
    for key, value in own.items():
        if key in given:
            _check_tensor(key, given[key], value)
        elif parse(key).in_plain_resnet:
            raise UserError(f'the weights have no {key}{_REMEDY}')
    stages = tuple(f'{stage}.' for stage in backbone.res_layers)
    for key in given:
        if key not in own and key.startswith(('stem.', *stages)):
            hint = _REMEDY if parse(key).attention is None else _GIVE_ATTENTION
            raise UserError(f'the backbone has no {key}{hint}')
    if preserve_pretrained:
        for name, block in _new_attention(backbone, given):
            if block.identity_gain == 0:
                raise UserError(
                    f'{name}.attention: alpha=-2 makes the gain 1 + alpha / 2 zero, from which '
                    'pretrained weights cannot be kept; use another alpha, or '
                    'preserve_pretrained=False'
                )
    return layout, given


def _new_attention(
    backbone: Backbone, given: dict[str, Tensor]
) -> Iterator[tuple[str, ResidualBlock]]:
    """The blocks whose attention the weights do not have."""
    for name, block in backbone.attention_blocks():
        if f'{name}.attention.fc2.weight' not in given:
            yield name, block


def start_at_identity(state: dict[str, Tensor], name: str, block: ResidualBlock) -> None:
    """Write the identity start of one block into a state dict whose last norms are plain.

    Args:
        state: The state dict; changed in place.
        name: The block's name.
        block: The block; its ``identity_gain`` is not 0.
    """
    gain = block.identity_gain
    for kind in ('weight', 'bias'):
        fc2, norm = f'{name}.attention.fc2.{kind}', f'{name}.{block.last_norm_name}.{kind}'
        if fc2 in state:
            state[fc2] = torch.zeros_like(state[fc2])
        state[norm] = state[norm] / gain


def _check_tensor(key: str, given: Tensor, own: Tensor) -> None:
    if given.shape != own.shape:
        hint = _REMEDY
        if '.attention.fc1.' in key:
            hint = f'; set reduction or min_hidden of attention for a hidden width of {len(given)}'
        raise UserError(
            f'{key} is {tuple(given.shape)} in the weights and {tuple(own.shape)} in the backbone'
            + hint
        )
    if given.is_floating_point() and not given.isfinite().all():
        raise UserError(
            f'{key} has values that are not finite (NaN or infinite): '
            'the training that wrote it diverged; use an earlier checkpoint'
        )
