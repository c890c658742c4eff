"""Reading gates while a network computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmse.models import ChannelAttention, SEResNet

SATURATED = 0.05


def backbones(model: nn.Module) -> Iterator[SEResNet]:
    """Every backbone of ours in a model, wrapped for distributed training or not."""
    return (m for m in model.modules() if isinstance(m, SEResNet))


def attentions(model: nn.Module) -> Iterator[tuple[str, ChannelAttention]]:
    """Every attention with the name of its block, such as ``layer2.0``."""
    for backbone in backbones(model):
        for stage in backbone.res_layers:
            for index, block in enumerate(getattr(backbone, stage)):
                if block.attention is not None:
                    yield f'{stage}.{index}', block.attention


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the gates of every forward pass inside the context.

    The computation stays the same to the bit, and the fused path is kept.

    Args:
        model: With backbones of ours that are not compiled.

    Yields:
        Filled by each forward pass: the gates of its images by block, (B, C), in single precision.
    """
    gates: dict[str, Tensor] = {}
    watched = list(attentions(model))
    for name, attention in watched:
        _watch(name, attention, gates)
    try:
        yield gates
    finally:
        for _, attention in watched:
            vars(attention).pop('gate', None)


def _watch(name: str, attention: ChannelAttention, gates: dict[str, Tensor]) -> None:
    def gate(s_avg: Tensor | None, s_max: Tensor | None) -> Tensor:
        g = ChannelAttention.gate(attention, s_avg, s_max)
        gates[name] = g.detach().float()
        return g

    # An attribute of the instance stands before the method of the class, until it is removed.
    vars(attention)['gate'] = gate


def gate_statistics(gate: Tensor) -> dict[str, float]:
    """Mean, spread and saturated shares of gates in 0 to 1, of any shape."""
    values = {
        'mean': gate.mean(),
        'spread': gate.std(correction=0),
        'closed': (gate < SATURATED).float().mean(),
        'open': (gate > 1 - SATURATED).float().mean(),
    }
    return {key: float(value) for key, value in values.items()}


def learned_scalars(attention: ChannelAttention) -> dict[str, float]:
    """Alpha, T and the weight of the average squeeze, as far as they are learned."""
    logits = attention.fusion_logits
    values = {
        'alpha': attention.alpha,
        'T': attention.temperature,
        'weight_of_avg': None if logits is None else logits.softmax(0)[0],
    }
    return {k: float(v.detach()) for k, v in values.items() if isinstance(v, torch.Tensor)}
