"""Gates and learned scalars, read off a network without changing what it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmse.models import ChannelAttention, SEResNet

SATURATED = 0.05


def backbones(model: nn.Module) -> Iterator[SEResNet]:
    """Every ``SEResNet`` in a model, also inside a wrapper for distributed training."""
    return (m for m in model.modules() if isinstance(m, SEResNet))


def attentions(model: nn.Module) -> Iterator[tuple[str, ChannelAttention]]:
    """Every ``ChannelAttention`` of a model, with the name of its block, such as ``layer2.0``.

    Where there are several backbones, the name begins with that of the backbone.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, SEResNet)}
    for place, backbone in found.items():
        prefix = f'{place}.' if len(found) > 1 else ''
        for name, block in backbone.attention_blocks():
            if isinstance(block.attention, ChannelAttention):
                yield prefix + name, block.attention


def stage_of(block: str) -> str:
    """The stage of a block: ``layer2`` of ``layer2.0``."""
    return block.rpartition('.')[0]


def gains_of(attention: ChannelAttention, squeezed: Tensor) -> Tensor:
    """The gain of each channel, (B, C), that an attention makes from squeezes of other features.

    Args:
        attention: The attention.
        squeezed: Average and maximum of each channel, or the one that it takes, (S, B, C).
    """
    by_name = dict(zip(attention.settings.squeeze.split('+'), squeezed, strict=True))
    return attention.excite(by_name.get('avg'), by_name.get('max'))


@contextmanager
def watched(
    model: nn.Module, watcher: Callable[[str, ChannelAttention], Callable[[Tensor, Tensor], None]]
) -> Iterator[None]:
    """Show every gate of a model, inside the context, to a watcher of its block.

    The outputs stay the same to the bit, and blocks stay on the fused path. Where no gradients are
    computed, a watcher may overwrite the gate that it is shown.

    Args:
        model: A model with ``SEResNet`` backbones that are not compiled.
        watcher: Makes the watcher of a block, from its name and its attention. It gets the gate,
            (B, C), and the squeezes that it was made from, (S, B, C).
    """
    found = list(attentions(model))
    before = [attention.watcher for _, attention in found]
    for name, attention in found:
        attention.watcher = watcher(name, attention)
    try:
        yield
    finally:
        for (_, attention), old in zip(found, before, strict=True):
            attention.watcher = old


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the gates of every forward pass inside the context.

    Args:
        model: See ``watched``.

    Yields:
        A dict that every forward pass fills anew: gates by block, (B, C), in float32.
    """
    gates: dict[str, Tensor] = {}

    def keep(name: str, _: ChannelAttention) -> Callable[[Tensor, Tensor], None]:
        return lambda gate, _: gates.update({name: gate.float()})

    with watched(model, keep):
        yield gates


def gate_statistics(gate: Tensor) -> dict[str, float]:
    """Mean, standard deviation and saturated shares of gates between 0 and 1.

    Args:
        gate: Gates, of any shape.

    Returns:
        ``mean``, ``spread`` (the standard deviation), ``closed`` (the share of gates below 0.05)
        and ``open`` (the share above 0.95).
    """
    values = {
        'mean': gate.mean(),
        'spread': gate.std(correction=0),
        'closed': (gate < SATURATED).float().mean(),
        'open': (gate > 1 - SATURATED).float().mean(),
    }
    return {key: float(value) for key, value in values.items()}


def learned_scalars(attention: ChannelAttention) -> dict[str, float]:
    """``alpha``, ``T`` and ``weight_of_avg`` (of the average squeeze), those that are learned."""
    logits = attention.fusion_logits
    values = {
        'alpha': attention.alpha,
        'T': attention.temperature,
        'weight_of_avg': None if logits is None else logits.softmax(0)[0],
    }
    return {k: float(v.detach()) for k, v in values.items() if isinstance(v, torch.Tensor)}
