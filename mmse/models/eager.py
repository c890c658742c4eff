"""The four steps of a tail, from torch's operations; the formulas are in ``mmse.models.fused``.

Two of them read whole maps and reduce them to (B, C) numbers (``squeeze``, ``reduce_backward``),
two write one (``apply``, ``apply_backward``). Without attention, q is None: factors and sums are
then per channel, (C,).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import passes, synchronised
from mmse.models.passes import policy_of
from mmse.models.synchronised import Group


class Squeezed(NamedTuple):
    """What the squeeze computes; the mean of y is ``pivot + mean``."""

    y: Tensor  # less ``shift``, where there is one
    shift: Tensor | None  # (C,), as a to invstd
    pivot: Tensor | None
    a: Tensor
    mean: Tensor
    invstd: Tensor
    m: Tensor | None  # (B, C), as t and position
    t: Tensor | None
    position: Tensor | None
    count: Tensor | None  # values of a channel in all processes, where the norm is synchronised


def uses_batch(norm: _BatchNorm) -> bool:
    """Whether a norm takes the statistics of the batch."""
    return norm.training or norm.running_mean is None


def squeeze(
    y: Tensor, norm: _BatchNorm, mode: str, locate: bool, group: Group | None
) -> tuple[Squeezed, Tensor | None, Tensor | None]:
    """Statistics of y, and s_avg and s_max, (B, C) each; None for one that ``mode`` leaves out.

    The running statistics are updated as BatchNorm2d does.

    Args:
        y: The norm's input, (B, C, H, W).
        norm: The norm.
        mode: Which squeeze: ``'avg'``, ``'max'``, ``'avg+max'``, or ``''`` for none.
        locate: Whether the maximum's position is needed.
        group: The processes that a synchronised norm shares its statistics with.
    """
    y = y.contiguous(memory_format=passes.layout(y))
    policy, running = policy_of(y), None
    if not uses_batch(norm):
        kind = passes.accumulator(y)
        running = norm.running_mean.to(kind), norm.running_var.to(kind)  # type: ignore[union-attr]
    found = policy.centre(y, running, norm.eps, 'avg' in mode)
    count = None
    if running is None:
        total: Tensor | float = y.numel() / y.shape[1]
        if group is not None:
            found, total = synchronised.merge(found, total, norm.eps, group)
            count = total
        if norm.training and norm.track_running_stats:
            _track(norm, found.mean + found.base, found.var, total)
    y, pivot, base, mean, var, m = found
    shift = base if pivot is None and isinstance(base, Tensor) else None
    invstd = (var + norm.eps).rsqrt_()
    a = norm.weight * invstd
    t = position = None
    if 'max' in mode:
        if locate:
            position = policy.peak(y, a)
            t = passes.values_at(y, position)
        else:
            t = policy.extremes(y, a)
        t = (t if pivot is None else t - pivot) - mean
    s_avg, s_max = (None if v is None else torch.addcmul(norm.bias, a, v) for v in (m, t))
    return Squeezed(y, shift, pivot, a, mean, invstd, m, t, position, count), s_avg, s_max


def apply(
    known: Squeezed,
    bias: Tensor,
    q: Tensor | None,
    shortcut: Tensor | None,
    in_place: bool = False,
) -> Tensor:
    """relu(norm(y)*q + shortcut), (B, C, H, W); ``in_place`` of y where that is possible."""
    scale, offset = (known.a, bias) if q is None else (known.a * q, bias * q)
    offset = torch.addcmul(offset, known.mean, scale, value=-1)
    policy = policy_of(known.y)
    out = policy.affine(known.y, scale, offset, known.pivot, in_place)
    return out.relu_() if shortcut is None else policy.add_relu_(out, shortcut)


def reduce_backward(
    grad_out: Tensor, out: Tensor, known: Squeezed, per_sample: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient d before the relu, and sum(d) and sum(d*(y - mean)).

    The sums are (B, C), or (C,) over the samples.
    """
    d = torch.ops.aten.threshold_backward(grad_out, out, 0)
    pivot = known.pivot
    about = known.mean if pivot is None else pivot
    sum_d, sum_dy = policy_of(d).sums(d, known.y, about, per_sample)
    if pivot is not None:
        sum_dy.addcmul_(sum_d, known.mean, value=-1)
    return d, sum_d, sum_dy


def norm_grads(
    known: Squeezed,
    q: Tensor | None,
    u: Tensor | None,
    v: Tensor | None,
    sum_d: Tensor,
    sum_dy: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sums of g and of g*(y - mean), (C,), where g is the gradient of the norm's output.

    They are the gradient of the norm's bias, and that of its weight over ``invstd``. u and v are
    the gradients of s_avg and s_max, or None.
    """
    if q is None:
        return sum_d, sum_dy
    sum_g, sum_gy = q * sum_d, q * sum_dy
    for slope, value in ((u, known.m), (v, known.t)):
        if slope is not None and value is not None:
            sum_g.add_(slope)
            sum_gy.addcmul_(slope, value)
    return sum_g.sum(0), sum_gy.sum(0)


def apply_backward(
    d: Tensor,
    known: Squeezed,
    q: Tensor | None,
    u: Tensor | None,
    v: Tensor | None,
    through_batch: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The gradient of y, (B, C, H, W).

    Args:
        d: As ``reduce_backward`` gives it.
        known: As ``squeeze`` gave it.
        q: The gain, (B, C).
        u: Gradient of s_avg, (B, C), or None.
        v: Gradient of s_max, (B, C), or None.
        through_batch: What ``norm_grads`` gives, over all processes; None with running statistics.
    """
    y, a, pivot = known.y, known.a, known.pivot
    n = y.shape[2] * y.shape[3]
    scale = a if q is None else a * q
    c = torch.zeros_like(scale) if u is None else u * (a / n)
    k = None
    if through_batch is not None:
        sum_g, sum_gy = through_batch
        b = a / (len(y) * n if known.count is None else known.count)
        k = (b * sum_gy).mul_(known.invstd.square()).neg_()
        mean = known.mean if pivot is None else known.mean + pivot
        c.sub_((b * sum_g).addcmul_(k, mean))
    policy = policy_of(d)
    grad_y = policy.affine(d, scale, c)
    if k is not None:
        policy.add_scaled_(grad_y, y, k)
    if v is not None and known.position is not None:
        # A channel has one position: scatter_ is deterministic where scatter_add_ is not.
        flat, index = grad_y.view(*v.shape, n), known.position[..., None]
        flat.scatter_(2, index, flat.gather(2, index) + (a * v)[..., None].to(y.dtype))
    return grad_y


def _track(norm: _BatchNorm, mean: Tensor, var: Tensor, count: float | Tensor) -> None:
    """Update the running statistics as BatchNorm2d does, those that there are."""
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    new = (norm.running_mean, mean), (norm.running_var, var * (count / (count - 1)))
    for running, value in new:
        if running is not None:
            running.lerp_(value.to(running.dtype), momentum or 0.0)
