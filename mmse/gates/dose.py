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
                wanted = (wanted - 1) / alpha
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
            model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
    model.train(training)
    return found


def dose(sums: Mapping[str, Sums], start: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """What became of the gains of each block since the start.

    Args:
        sums: What the attention of each block does to some images.
        start: The mean gains of each block at the start, (C,).

    Returns:
        By block: ``moved``, the root mean square of r - 1 over images and channels; ``mean``, the
        mean of r; ``over_channels``, the standard deviation over the channels of r's mean over
        the images; ``over_images``, the standard deviation over the images, the root of its mean
        square over the channels (so moved^2 = (mean - 1)^2 + over_channels^2 + over_images^2); and
        the shares of gates that are ``closed`` (below 0.05) and ``open`` (above 0.95).
    """
    rows = {}
    for name, of in sums.items():
        reference = start[name].double()
        mean = torch.as_tensor(of.gain) / of.images / reference
        square = torch.as_tensor(of.square) / of.images / reference.square()
        variance = (square - mean.square()).clamp(min=0)
        shares = {
            key: float(torch.as_tensor(getattr(of, key)).mean() / of.images)
            for key in ('closed', 'open')
        }
        rows[name] = {
            'moved': float(((mean - 1).square() + variance).mean().sqrt()),
            'mean': float(mean.mean()),
            'over_channels': float(mean.std(correction=0)),
            'over_images': float(variance.mean().sqrt()),
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
