"""How far an attention moves away from its start, and what a metric owes to it.

The gain of a channel is what its residual branch is multiplied by: g, or 1 + alpha * g. All numbers
are about r, the gain over the mean gain that the same block had before the training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmse.gates.watch import SATURATED, watched
from mmse.models import ChannelAttention
from mmse.models.functional import gain


@dataclass
class Sums:
    """Sums over images of one block's attention, all but the number of images by channel, (C,)."""

    images: int = 0
    gain: Tensor | float = 0.0
    square: Tensor | float = 0.0
    closed: Tensor | float = 0.0
    open: Tensor | float = 0.0

    def add(self, gate: Tensor, gained: Tensor) -> None:
        """Add a batch: gates and gains, (B, C) each."""
        self.images += len(gate)
        self.gain += gained.double().sum(0).cpu()
        self.square += gained.double().square().sum(0).cpu()
        self.closed += (gate < SATURATED).double().sum(0).cpu()
        self.open += (gate > 1 - SATURATED).double().sum(0).cpu()


def mean_gains(sums: Mapping[str, Sums]) -> dict[str, Tensor]:
    """The mean gain of every channel over the images by block, (C,)."""
    return {name: torch.as_tensor(of.gain / of.images) for name, of in sums.items()}


def deviations(sums: Mapping[str, Sums]) -> dict[str, Tensor]:
    """The standard deviation of the gain of every channel over the images by block, (C,)."""
    means = mean_gains(sums)
    squares = {name: torch.as_tensor(of.square / of.images) for name, of in sums.items()}
    return {name: (squares[name] - means[name] ** 2).clamp(min=0).sqrt() for name in sums}


@dataclass(frozen=True)
class Start:
    """The gains with which a training starts, over its validation images.

    Args:
        mean: Mean of each channel by block, (C,).
        deviation: Standard deviation of each channel over the images, likewise.
    """

    mean: Mapping[str, Tensor]
    deviation: Mapping[str, Tensor]

    @classmethod
    def of(cls, sums: Mapping[str, Sums]) -> 'Start':
        """That of a pass over the images."""
        return cls(mean_gains(sums), deviations(sums))


@contextmanager
def summed(model: nn.Module) -> Iterator[dict[str, Sums]]:
    """Sum up what the attention does in every forward pass inside the context.

    Args:
        model: A model with ``SEResNet`` backbones that are not compiled.

    Yields:
        The sums of each block, which grow pass by pass.
    """
    found: dict[str, Sums] = {}

    def keep(name: str, attention: ChannelAttention) -> Callable[[Tensor], None]:
        def watch(gate: Tensor) -> None:
            gate = gate.float()
            gained = gain(gate, attention.settings.residual, alpha_of(attention))
            found.setdefault(name, Sums()).add(gate, gained)

        return watch

    with watched(model, keep):
        yield found


@contextmanager
def held(model: nn.Module, gains: Mapping[str, Tensor]) -> Iterator[None]:
    """Hold gains constant in every forward pass inside the context: the same for all images.

    Args:
        model: A model that computes no gradients meanwhile.
        gains: The gains of each block, (C,).
    """

    def hold(name: str, attention: ChannelAttention) -> Callable[[Tensor], None]:
        def overwrite(gate: Tensor) -> None:
            wanted = gains[name]
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


def sums_over(model: BaseModel, batches: Iterable[Mapping[str, Any]]) -> dict[str, Sums]:
    """Run the backbone over images and sum up what its attention does.

    Args:
        model: A model with ``SEResNet`` backbones; it is left in the mode that it was in.
        batches: Batches as the validation loader of the model gives them.
    """
    training = model.training
    model.eval()
    with torch.no_grad(), summed(model) as found:
        for batch in batches:
            if hasattr(model, 'extract_feat'):
                model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
            else:
                model.val_step(batch)
    model.train(training)
    return found


def dose(sums: Mapping[str, Sums], start: Start) -> dict[str, dict[str, float]]:
    """What became of the gains of each block since the start.

    Args:
        sums: What the attention of each block does to some images.
        start: What it did to the same images at the start.

    Returns:
        By block: ``moved``, the root mean square over the channels of the change of r's mean and
        deviation over the images; from the identity, whose gains do not vary, this is the root
        mean square of r - 1 over images and channels. ``mean``, the mean of r; ``over_channels``,
        the standard deviation over the channels of r's mean over the images; ``over_images``, the
        root mean square over the channels of r's standard deviation over the images; and the
        shares of gates that are ``closed`` (below 0.05) and ``open`` (above 0.95).
    """
    rows = {}
    means, spreads = mean_gains(sums), deviations(sums)
    for name, of in sums.items():
        reference = start.mean[name].double()
        mean, spread = means[name] / reference, spreads[name] / reference
        change = spread - start.deviation[name] / reference
        shares = {
            key: float(torch.as_tensor(getattr(of, key)).mean() / of.images)
            for key in ('closed', 'open')
        }
        rows[name] = {
            'moved': float(((mean - 1).square() + change.square()).mean().sqrt()),
            'mean': float(mean.mean()),
            'over_channels': float(mean.std(correction=0)),
            'over_images': float(spread.square().mean().sqrt()),
            **shares,
        }
    return rows


def of_network(rows: Mapping[str, Mapping[str, float]], key: str) -> float:
    """One number for a network: the root mean square over its blocks; 0 without any.

    Args:
        rows: The dose of each block.
        key: ``'moved'`` or ``'over_images'``.
    """
    squares = [row[key] ** 2 for row in rows.values()]
    return float((sum(squares) / len(squares)) ** 0.5) if squares else 0.0
