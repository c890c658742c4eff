"""How far an attention moves away from its start, and what a metric owes to it.

The gain of a channel is what its residual branch is multiplied by: g, or 1 + alpha * g. It is
compared with the gain that the attention would give with the weights that it started with, for the
same features. All numbers are about r, the gain over the mean of those gains of the channel.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmse.gates.watch import SATURATED, attentions, gains_of, watched
from mmse.models import ChannelAttention
from mmse.models.functional import gain

# A random hardsigmoid gate can be shut from the start; the gain of its channel has no ratio.
SMALLEST_START = 0.1  # of the mean over the channels of the block
Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Sums:
    """Sums over images of one block's attention, all but the number of images by channel, (C,)."""

    images: int = 0
    gain: Tensor | float = 0.0
    square: Tensor | float = 0.0
    start: Tensor | float = 0.0  # the gains that it would have with its weights at the start
    change: Tensor | float = 0.0  # squared differences from them
    closed: Tensor | float = 0.0
    open: Tensor | float = 0.0

    def add(self, gate: Tensor, gained: Tensor, before: Tensor) -> None:
        """Add a batch: gates, gains, and gains with the weights at the start, (B, C) each."""
        gained, before = gained.double(), before.double()
        self.images += len(gate)
        self.gain += gained.sum(0).cpu()
        self.square += gained.square().sum(0).cpu()
        self.start += before.sum(0).cpu()
        self.change += (gained - before).square().sum(0).cpu()
        self.closed += (gate < SATURATED).double().sum(0).cpu()
        self.open += (gate > 1 - SATURATED).double().sum(0).cpu()


def mean_gains(sums: Mapping[str, Sums]) -> dict[str, Tensor]:
    """The mean gain of every channel over the images by block, (C,)."""
    return {name: torch.as_tensor(of.gain / of.images) for name, of in sums.items()}


def start_weights(model: nn.Module) -> Weights:
    """A copy of the weights of every attention of a model, by block."""
    return copy.deepcopy({name: module.state_dict() for name, module in attentions(model)})


def at_start(model: nn.Module, weights: Weights) -> dict[str, ChannelAttention]:
    """A copy of every attention of a model, by block, with other weights.

    Args:
        model: A model with ``SEResNet`` backbones.
        weights: What ``start_weights`` gave.
    """
    copies = {}
    for name, attention in attentions(model):
        copies[name] = copy.deepcopy(attention)
        copies[name].watcher = None
        copies[name].load_state_dict(dict(weights[name]))
    return copies


@contextmanager
def summed(model: nn.Module, started: Mapping[str, ChannelAttention]) -> Iterator[dict[str, Sums]]:
    """Sum up what the attention does in every forward pass inside the context.

    Args:
        model: A model with ``SEResNet`` backbones that are not compiled.
        started: Each attention as it was at the start.

    Yields:
        The sums of each block, which grow pass by pass.
    """
    found: dict[str, Sums] = {}

    def keep(name: str, attention: ChannelAttention) -> Callable[[Tensor, Tensor], None]:
        def watch(gate: Tensor, squeezed: Tensor) -> None:
            gate = gate.float()
            gained = gain(gate, attention.settings.residual, alpha_of(attention))
            with torch.no_grad():
                before = gains_of(started[name], squeezed)
            found.setdefault(name, Sums()).add(gate, gained, before)

        return watch

    with watched(model, keep):
        yield found


@contextmanager
def held(model: nn.Module, gains: Mapping[str, Tensor | ChannelAttention]) -> Iterator[None]:
    """Put other gains in place of those of the attention in every forward pass in the context.

    Args:
        model: A model that computes no gradients meanwhile.
        gains: By block: constant gains, (C,), the same for all images; or an attention of the same
            squeezes, whose gains are taken.
    """

    def hold(name: str, attention: ChannelAttention) -> Callable[[Tensor, Tensor], None]:
        def overwrite(gate: Tensor, squeezed: Tensor) -> None:
            other = gains[name]
            wanted = other if isinstance(other, Tensor) else gains_of(other, squeezed)
            if (alpha := alpha_of(attention)) is not None:
                # An alpha of 0 leaves the branch as it is, whatever the gate.
                wanted = (wanted - 1) / alpha if alpha else torch.zeros_like(wanted)
            gate.copy_(wanted.expand_as(gate))

        return overwrite

    with watched(model, hold):
        yield


def alpha_of(attention: ChannelAttention) -> float | None:
    """Alpha as a number; None without residual gating."""
    alpha = attention.alpha
    return float(alpha.detach()) if isinstance(alpha, Tensor) else alpha


def dose(sums: Mapping[str, Sums]) -> dict[str, dict[str, float]]:
    """What became of the gains of each block since the start.

    Args:
        sums: What the attention of each block does to some images.

    Returns:
        By block: ``moved``, the root mean square over images and channels of the change of r;
        ``mean``, the mean of r; ``over_channels``, the standard deviation over the channels of r's
        mean over the images; ``over_images``, the root mean square over the channels of r's
        standard deviation over the images; and the shares of gates that are ``closed`` (below
        0.05) and ``open`` (above 0.95). A mean gain at the start counts as at least a tenth of that
        of the block.
    """
    rows = {}
    for name, of in sums.items():
        mean, square, start, change, closed, opened = (
            torch.as_tensor(total) / of.images
            for total in (of.gain, of.square, of.start, of.change, of.closed, of.open)
        )
        start = start.clamp(min=SMALLEST_START * start.mean().clamp(min=1e-6))
        variance = (square - mean.square()).clamp(min=0) / start.square()
        rows[name] = {
            'moved': float((change / start.square()).mean().sqrt()),
            'mean': float((mean / start).mean()),
            'over_channels': float((mean / start).std(correction=0)),
            'over_images': float(variance.mean().sqrt()),
            'closed': float(closed.mean()),
            'open': float(opened.mean()),
        }
    return rows


def of_network(rows: Mapping[str, Mapping[str, float]], key: str) -> float:
    """One number for a network: the root mean square over its blocks; 0 without any.

    Args:
        rows: The dose of each block.
        key: ``'moved'``, ``'over_images'``, or ``'within'`` for what is left of ``'moved'`` without
            the factor that all channels of a block have in common for all images.
    """
    squares = [_square(row, key) for row in rows.values()]
    return float((sum(squares) / len(squares)) ** 0.5) if squares else 0.0


def _square(row: Mapping[str, float], key: str) -> float:
    if key == 'within':
        return max(0.0, row['moved'] ** 2 - (row['mean'] - 1) ** 2)
    return row[key] ** 2
