"""Fitting a checkpoint's ResNet weights to a backbone with attention, when they are loaded.

Two things happen on the way in. Keys of other layouts get our names
(``mmse.weights.layouts``). And where the backbone has attention that the checkpoint has not, the
attention starts at the identity: with fc2 at zero the gate is 1/2 whatever the input, so the branch
is scaled by a known gain (1/2, or 1 + alpha / 2 with residual gating); dividing the weight and the
bias of the branch's last norm by it gives back exactly the function of the plain network.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmse.errors import UserError
from mmse.weights.layouts import to_mmse

# What every plain ResNet has; other keys (deformable offsets, plugins, attention) may be new.
PLAIN = re.compile(
    r'(stem\.\d|(layer\d\.\d+\.)?[a-z]+\d|layer\d\.\d+\.downsample\.\d)'
    r'\.(weight|bias|running_mean|running_var)'
)

_REMEDY = '; set depth and widths of the backbone to those of the weights, or use other weights'
_GIVE_ATTENTION = '; give this block attention in the config, or use weights without attention'


@dataclass
class LoadReport:
    """What loading a checkpoint into a backbone did.

    Args:
        layout: Whose checkpoint it was; see ``mmse.weights.layouts``.
        loaded: Keys that the checkpoint gave.
        new: Keys that it has not: attention, deformable offsets, plugins.
        unused: Keys of the checkpoint that the backbone has no place for.
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
    backbone: nn.Module, weights: dict[str, Tensor], preserve_pretrained: bool = True
) -> tuple[dict[str, Tensor], LoadReport]:
    """The complete state of a backbone from a checkpoint's weights.

    Args:
        backbone: An SEResNet; it is only read.
        weights: The backbone's weights in the checkpoint, of any layout, without a prefix.
        preserve_pretrained: Start attention that the checkpoint has not at the identity; otherwise
            it keeps its random start.

    Returns:
        A state dict with every key of the backbone, and what was done.

    Raises:
        UserError: A weight is missing, of another shape or not finite, or the identity start does
            not exist (gain 0); it names the first such key.
    """
    if any(key.startswith('backbone.') for key in weights):
        prefix = len('backbone.')
        weights = {k[prefix:]: v for k, v in weights.items() if k.startswith('backbone.')}
    layout, given = to_mmse(weights)
    report = LoadReport(layout)
    own = backbone.state_dict()
    new_blocks = {
        name: block
        for name, block in attention_blocks(backbone)
        if f'{name}.attention.fc2.weight' not in given
    }
    state = {}
    for key, value in own.items():
        if key in given:
            _check_tensor(key, given[key], value)
            state[key] = given[key]
            report.loaded.append(key)
        elif PLAIN.fullmatch(key):
            raise UserError(f'the weights have no {key}{_REMEDY}')
        else:
            state[key] = value
            if not key.endswith('num_batches_tracked'):
                report.new.append(key)
    report.unused = [key for key in given if key not in own]
    stages = tuple(f'{stage}.' for stage in backbone.res_layers)  # type: ignore[union-attr]
    strangers = [key for key in report.unused if key.startswith(('stem.', *stages))]
    if strangers:
        hint = _GIVE_ATTENTION if '.attention.' in strangers[0] else _REMEDY
        raise UserError(f'the backbone has no {strangers[0]}{hint}')
    if preserve_pretrained:
        for name, block in new_blocks.items():
            start_at_identity(state, name, block)
            report.identity.append(name)
    return state, report


def attention_blocks(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every block that has attention."""
    for stage in backbone.res_layers:  # type: ignore[union-attr]
        for index, block in enumerate(getattr(backbone, stage)):
            if block.attention is not None:
                yield f'{stage}.{index}', block


def start_at_identity(state: dict[str, Tensor], name: str, block: nn.Module) -> None:
    """Write the identity start of one block into a state dict whose last norms are plain.

    Raises:
        UserError: The gain at the start is 0.
    """
    gain: float = block.attention.identity_gain  # type: ignore[union-attr, assignment]
    if gain == 0:
        raise UserError(
            f'{name}.attention: alpha={block.attention.settings["alpha"]:g} makes the gain '  # type: ignore[union-attr, index]
            '1 + alpha / 2 zero, from which pretrained weights cannot be kept; '
            'use another alpha, or preserve_pretrained=False'
        )
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
