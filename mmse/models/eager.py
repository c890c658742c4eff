"""The four steps of a tail, from torch's operations; the formulas are in ``mmse.models.fused``.

Two of them read whole maps and reduce them to (B, C) numbers (``squeeze``, ``reduce_backward``),
two write one (``apply``, ``gradients``). Without attention, q is None: factors and sums are then
per channel, (C,).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import passes, synchronised
from mmse.models.passes import Centred, count_batch
from mmse.models.policies import policy_of
from mmse.models.synchronised import Group


class Squeezed(NamedTuple):
    """What the squeeze computes; the norm maps y to ``a*(y - about) + at``.

    Args:
        y: The norm's input, less ``shift`` where there is one, (B, C, H, W).
        shift: What y was shifted by, (C,), or None.
        pivot: What kernels subtract from y when they read it, (B, C), or None.
        about: The pivot, or y's mean, (C,).
        rest: y's mean less ``about``, (C,); None where they are the same.
        a: The norm's weight over the deviation, (C,).
        at: (C,).
        invstd: 1/sqrt(var + eps), (C,).
        values: y - about, averaged and at the maximum of a*y, (S, B, C): one of them or both.
        position: Where that maximum is in the flattened map, (B, C).
        total: Values of a channel in all processes, (1,), where the norm is synchronised.
    """

    y: Tensor
    shift: Tensor | None
    pivot: Tensor | None
    about: Tensor
    rest: Tensor | None
    a: Tensor
    at: Tensor
    invstd: Tensor
    values: Tensor | None
    position: Tensor | None
    total: Tensor | None

    def descriptors(self) -> Tensor:
        """Average and maximum of the norm's output, or one of them, (S, B, C)."""
        assert self.values is not None
        return torch.addcmul(self.at, self.a, self.values)


def squeeze(y: Tensor, norm: _BatchNorm, mode: str, locate: bool, group: Group | None) -> Squeezed:
    """Statistics of y, and its averages and extremes, those that a squeeze needs.

    The running statistics are updated as BatchNorm2d does.

    Args:
        y: The norm's input, (B, C, H, W).
        norm: The norm.
        mode: Which squeeze: ``'avg'``, ``'max'``, ``'avg+max'``, or ``''`` for none.
        locate: Whether the maximum's position is needed.
        group: The processes that a synchronised norm shares its statistics with.
    """
    y = y.contiguous(memory_format=passes.layout(y))
    policy, batch = policy_of(y), passes.uses_batch(norm)
    track = norm.training and norm.track_running_stats
    found = policy.centre(y, norm, mode, track and group is None)
    total = None
    if batch:
        values = y.numel() / y.shape[1]
        if group is not None:
            found, total = synchronised.merge(found, values, norm.eps, group)
        momentum = count_batch(norm)
        if track and not found.tracked:
            _track(norm, momentum, found, values if total is None else total)
    y, shift, pivot, about, rest, var, averages, _ = found
    invstd = (var + norm.eps).rsqrt_()
    a = norm.weight * invstd
    at = norm.bias.to(a.dtype)
    if rest is not None:
        at = torch.addcmul(at, a, rest, value=-1)
    position = None
    squeezed = [] if averages is None or 'avg' not in mode else [averages]
    if 'max' in mode:
        if locate:
            position = policy.peak(y, a)
            extreme = passes.values_at(y, position)
        else:
            extreme = policy.extremes(y, a)
        squeezed.append(extreme - (about if pivot is None else pivot))
    stacked = None
    if squeezed:
        stacked = torch.stack(squeezed) if len(squeezed) > 1 else squeezed[0][None]
    return Squeezed(y, shift, pivot, about, rest, a, at, invstd, stacked, position, total)


def apply(
    known: Squeezed, q: Tensor | None, shortcut: Tensor | None, in_place: bool = False
) -> Tensor:
    """relu(norm(y)*q + shortcut), (B, C, H, W); ``in_place`` of y where possible."""
    scale, at = known.a, known.at
    if known.pivot is None:
        at = torch.addcmul(at, known.about, scale, value=-1)
    if q is not None:
        scale, at = scale * q, at * q
    policy = policy_of(known.y)
    out = policy.affine(known.y, scale, at, known.pivot, in_place)
    return out.relu_() if shortcut is None else policy.add_relu_(out, shortcut)


def reduce_backward(
    grad_out: Tensor, out: Tensor, known: Squeezed
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
    """The gradient d before the relu, its sums, and the gain's gradient, (B, C).

    The sums are sum(d) and sum(d*(y - about)), (B, C), or without attention (C,).
    """
    d = torch.ops.aten.threshold_backward(grad_out, out, 0)
    about, attends = known.about if known.pivot is None else known.pivot, known.values is not None
    sum_d, sum_dy = policy_of(d).sums(d, known.y, about, per_sample=attends)
    grad_q = (known.at * sum_d).addcmul_(known.a, sum_dy) if attends else None
    return d, (sum_d, sum_dy), grad_q


def gradients(
    d: Tensor,
    known: Squeezed,
    q: Tensor | None,
    slopes: Tensor | None,
    mode: str,
    sums: tuple[Tensor, Tensor],
    batch: bool,
    group: Group | None,
    needs_y: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of y, if it is needed, and of the norm's weight and bias.

    Args:
        d: As ``reduce_backward`` gives it.
        known: As ``squeeze`` gave it.
        q: The gain, (B, C), or None.
        slopes: Gradients of the squeezed descriptors, (S, B, C), or None.
        mode: Which squeeze.
        sums: As ``reduce_backward`` gives them.
        batch: Whether the norm took the statistics of the batch.
        group: The processes that share them.
        needs_y: Whether y needs a gradient.
    """
    sum_g, sum_gy = _norm_sums(known, q, slopes, *sums)
    grad_weight, through_batch = sum_gy * known.invstd, None
    if not needs_y:
        return None, grad_weight, sum_g
    if batch:
        through_batch = (sum_g, grad_weight)
        if group is not None:
            all_g, all_gy = synchronised.add_up(sum_g, sum_gy, group)
            through_batch = (all_g, all_gy * known.invstd)
    u = slopes[0] if slopes is not None and 'avg' in mode else None
    v = slopes[-1] if slopes is not None and 'max' in mode else None
    return _apply_backward(d, known, q, u, v, through_batch), grad_weight, sum_g


def plain_gradients(
    d: Tensor, known: Squeezed, batch: bool, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of y and the norm's weight and bias without attention: torch's own batch norm's.

    Args:
        d: Gradient of the norm's output, (B, C, H, W).
        known: As ``squeeze`` gave it.
        batch: Whether the norm took the statistics of the batch.
        needs: Which of the three are needed.
    """
    mean = known.about if known.rest is None else known.about + known.rest
    weight, var = known.a / known.invstd, known.invstd.square().reciprocal()
    grads = torch.ops.aten.native_batch_norm_backward(
        d, known.y, weight, mean, var, mean, known.invstd, batch, 0.0, list(needs)
    )
    return tuple(grads)


def _norm_sums(
    known: Squeezed, q: Tensor | None, slopes: Tensor | None, sum_d: Tensor, sum_dy: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of g and of g*(y - mean), (C,), where g is the gradient of the norm's output.

    They are the gradient of the norm's bias, and that of its weight over ``invstd``.
    """
    sum_g, sum_gy = sum_d, sum_dy
    if q is not None and slopes is not None and known.values is not None:
        sum_g, sum_gy = torch.addcmul(slopes[0], q, sum_d), q * sum_dy
        if len(slopes) > 1:
            sum_g.add_(slopes[1])
        for slope, value in zip(slopes, known.values, strict=True):
            sum_gy.addcmul_(slope, value)
        sum_g, sum_gy = sum_g.sum(0), sum_gy.sum(0)
    if known.rest is not None:
        sum_gy = sum_gy.addcmul_(sum_g, known.rest, value=-1)
    return sum_g, sum_gy


def _apply_backward(
    d: Tensor,
    known: Squeezed,
    q: Tensor | None,
    u: Tensor | None,
    v: Tensor | None,
    through_batch: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The gradient of y, (B, C, H, W); u and v are those of s_avg and s_max, (B, C).

    ``through_batch`` has the gradients of the norm's bias and weight over all processes, (C,).
    """
    y, a = known.y, known.a
    scale = a if q is None else a * q
    n = y.shape[2] * y.shape[3]
    if through_batch is None:
        k, c = None, torch.zeros_like(a)
    else:
        grad_bias, grad_weight = through_batch
        b = a / (-len(y) * n if known.total is None else -known.total)
        k = (known.invstd * grad_weight).mul_(b)
        c = torch.addcmul(b * grad_bias, k, known.about, value=-1)
        if known.rest is not None:
            c.addcmul_(k, known.rest, value=-1)
    if u is not None:
        c = torch.addcmul(c, u, a, value=1 / n)
    policy = policy_of(d)
    grad_y = policy.affine(d, scale, c.expand_as(scale))
    if k is not None:
        policy.add_scaled_(grad_y, y, k)
    if v is not None and known.position is not None:
        # A channel has one position: scatter_ is deterministic where scatter_add_ is not.
        flat, index = grad_y.view(*v.shape, n), known.position[..., None]
        there = torch.addcmul(flat.gather(2, index).squeeze(2), a, v)
        flat.scatter_(2, index, there[..., None].to(y.dtype))
    return grad_y


def _track(norm: _BatchNorm, momentum: float, found: Centred, count: float | Tensor) -> None:
    """Update the running statistics as BatchNorm2d does, those that there are."""
    new = (norm.running_mean, found.mean), (norm.running_var, found.var * (count / (count - 1)))
    for running, value in new:
        if running is not None:
            running.lerp_(value.to(running.dtype), momentum)
