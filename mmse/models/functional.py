"""Channel attention as pure functions of tensors: squeeze, gate, recalibrate.

They read like the formulas: x is the output of the last norm of a residual branch, s the squeezed
descriptor, z the excitation, g the gate, y the recalibrated branch. Sources: squeeze and excitation
(https://arxiv.org/abs/1709.01507); average and max squeeze in one shared excitation
(https://arxiv.org/abs/1807.06521); residual gating (https://arxiv.org/abs/1704.06904).
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar('T', Tensor, float)

ACTIVATIONS = {'silu': F.silu, 'relu': F.relu}


def squeeze(x: Tensor, mode: str) -> tuple[Tensor | None, Tensor | None]:
    """Squeeze each channel of a feature map to its average, its maximum, or both.

    Args:
        x: Feature map, (B, C, H, W).
        mode: ``'avg'``, ``'max'`` or ``'avg+max'``.

    Returns:
        Average and maximum, (B, C) each; None for the one that ``mode`` leaves out. In a tie the
        first position, row by row, gets the gradient of the maximum.
    """
    s_avg = x.mean((2, 3)) if 'avg' in mode else None
    s_max = x.flatten(2).max(2).values if 'max' in mode else None
    return s_avg, s_max


def fuse(s_avg: Tensor | None, s_max: Tensor | None, logits: Tensor | None) -> Tensor:
    """Fuse average and maximum into one descriptor, (B, C).

    Args:
        s_avg: Average, or None where it is not used.
        s_max: Maximum, or None where it is not used.
        logits: Logits of the softmax weights of average and maximum, (2,); without them the two
            are added.
    """
    if s_max is None:
        return s_avg  # type: ignore[return-value]
    if s_avg is None:
        return s_max
    if logits is None:
        return s_avg + s_max
    p_avg, p_max = logits.softmax(0).to(s_avg.dtype).unbind()
    return p_avg * s_avg + p_max * s_max


def gate(z: Tensor, kind: str, temperature: Tensor | float = 1.0) -> Tensor:
    """Turn the excitation into a gate in [0, 1].

    Args:
        z: Excitation, (B, C).
        kind: ``'sigmoid'``, or ``'hardsigmoid'``: relu6(z / T + 3) / 6.
        temperature: Positive T; above 1 it flattens the gate, below 1 it sharpens it.
    """
    if not isinstance(temperature, int | float) or temperature != 1:
        z = z / temperature
    if kind == 'sigmoid':
        return torch.sigmoid(z)
    # F.hardsigmoid's backward on the CPU holds 1/6 in single precision, also for float64.
    return F.relu6(z + 3) / 6


def gain(g: T, residual: bool, alpha: T | float | None = 1.0) -> T:
    """The factor of each channel: g, or 1 + alpha * g with residual gating."""
    return 1 + alpha * g if residual else g  # type: ignore[operator]


def recalibrate(x: Tensor, q: Tensor) -> Tensor:
    """Scale each channel of x, (B, C, H, W), by the gain q, (B, C), in x's dtype."""
    return x * q[..., None, None].to(x.dtype)


def inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value`` > 0.

    Written as v + log(1 - exp(-v)): log(exp(v) - 1) overflows in float32 near v = 89.
    """
    return value + math.log(-math.expm1(-value))
