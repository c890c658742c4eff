r"""The tail of a residual block as one function: norm, attention, addition and relu.

::

    x = a*(y - mean) + beta     batch norm of the last convolution's output y, with the batch's or
                                the running statistics; a = gamma*invstd, invstd^-2 = var + eps
    q = gain(squeeze(x))        (B, C) numbers, see ChannelAttention
    out = relu(x*q + shortcut)

x is affine in y, so nothing here needs x: with m = mean_hw(y) - mean and t = y - mean at the
position p where a*y is largest, ``s_avg = a*m + beta``, ``s_max = a*t + beta`` and ``out =
relu(y*(a*q) + (beta - a*mean)*q + shortcut)``.

Backward, with d = grad_out*(out > 0), D = sum_hw(d) and E = sum_hw(d*(y - mean)):

- the shortcut's gradient is d, the gain's sum_hw(d*x) = a*E + beta*D; from it ordinary autograd on
  (B, C) numbers finds the gradients of the attention's parameters, u of s_avg and v of s_max;
- x has the gradient g = d*q + u/n + v*[at p], n positions per map, so beta has sum_b(sum_hw(g)) =
  sum_b(q*D + u + v), and gamma sum_b(sum_hw(g*(y - mean)))*invstd = sum_b(q*E + u*m + v*t)*invstd;
- y has a*g with running statistics. Through the batch's mean and variance come
  -a*(grad_beta + (y - mean)*invstd*grad_gamma)/(B*n) besides. Together this is
  d*(a*q) + y*k + c + a*v*[at p], with k per channel and c per sample and channel.

Only y and out are kept for the backward pass, as in a ResNet without attention.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import passes
from mmse.models.attention import ChannelAttention
from mmse.models.excitation import excitation_grads, tensors_of
from mmse.models.versions import autocast_state
from mmse.utils.errors import UserError

# Where a channel's mean is more deviations than this from zero, y is shifted by it first: in
# precision mean(y^2) - mean^2 loses the factor's square, y*(a*q) + (beta - a*mean)*q the factor.
FAR = 32.0**0.5


def fused_tail(
    y: Tensor, shortcut: Tensor, norm: _BatchNorm, attention: ChannelAttention, reuse: bool = False
) -> Tensor:
    """relu(attention(norm(y)) + shortcut), with the norm's running statistics updated.

    Args:
        y: Output of the last convolution, (B, C, H, W), with more than one value per channel.
        shortcut: What is added, (B, C, H, W).
        norm: The branch's last norm, with weight and bias.
        attention: The block's attention.
        reuse: The result may take y's memory where no gradients are computed.

    Raises:
        UserError: when the result is differentiated twice.
        ValueError: as the norm's, for an input of other dimensions than the norm takes.
    """
    norm._check_input_dim(y)  # type: ignore[no-untyped-call]
    if not torch.is_grad_enabled():
        known, s_avg, s_max = _squeeze(y, norm, attention.settings.squeeze, locate=False)
        q = attention.excite(s_avg, s_max).to(known.a.dtype)
        return _recalibrate(known, norm.bias, q, shortcut, in_place=reuse)
    inputs = (y, shortcut, norm.weight, norm.bias, norm, attention)
    tensors = tensors_of(attention)
    out: Tensor = _Tail.apply(*inputs, tuple(tensors), *tensors.values())  # type: ignore[no-untyped-call]
    return out


class _Known(NamedTuple):
    """What the squeeze computes; if y was far from zero, y and mean are shifted."""

    y: Tensor
    a: Tensor  # (C,), as mean and invstd
    mean: Tensor
    invstd: Tensor
    m: Tensor | None  # (B, C), as t and position
    t: Tensor | None
    position: Tensor | None


def _squeeze(
    y: Tensor, norm: _BatchNorm, squeeze: str, locate: bool
) -> tuple[_Known, Tensor | None, Tensor | None]:
    """What was computed of y, and s_avg and s_max, (B, C) each; None for an unused one."""
    y = y.contiguous(memory_format=passes.layout(y))
    y, mean, invstd, m = _normalise(y, norm, 'avg' in squeeze)
    a = norm.weight * invstd
    t = position = None
    if 'max' in squeeze and locate:
        position = passes.peak(y, a)
        t = passes.values_at(y, position) - mean
    elif 'max' in squeeze:
        t = passes.extremes(y, a) - mean
    s_avg, s_max = (
        None if value is None else torch.addcmul(norm.bias, a, value).to(y.dtype)
        for value in (m, t)
    )
    return _Known(y, a, mean, invstd, m, t, position), s_avg, s_max


def _recalibrate(
    known: _Known, bias: Tensor, q: Tensor, shortcut: Tensor, in_place: bool = False
) -> Tensor:
    """relu(norm(y)*q + shortcut), (B, C, H, W); ``in_place`` of y where that has a pass."""
    scale = known.a * q
    offset = (bias * q).addcmul_(known.mean, scale, value=-1)
    out = passes.add_relu_(passes.affine(known.y, scale, offset, in_place), shortcut)
    return out.to(known.y.dtype)


class _Tail(torch.autograd.Function):
    """The tail with gradients; everything that the result depends on is an input."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        shortcut: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: _BatchNorm,
        attention: ChannelAttention,
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> Tensor:
        known, s_avg, s_max = _squeeze(y, norm, attention.settings.squeeze, locate=True)
        ctx.autocast = autocast_state(y.device.type)
        # Old versions of torch would keep the weights as cast here, without their graph.
        with torch.autocast(**ctx.autocast, cache_enabled=False):
            q = attention.excite(s_avg, s_max).to(known.a.dtype)
        out = _recalibrate(known, bias, q, shortcut)
        ctx.attention, ctx.names = attention, names
        ctx.batch_statistics = _uses_batch(norm)
        ctx.shortcut_dtype = shortcut.dtype
        ctx.save_for_backward(out, bias, q, s_avg, s_max, *known, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UserError(
                'the fused attention has no second derivative (create_graph=True was given); '
                'build the backbone with fused=False'
            )
        out, bias, q, s_avg, s_max, *rest = ctx.saved_tensors
        known = _Known(*rest[: len(_Known._fields)])
        tensors = dict(zip(ctx.names, rest[len(_Known._fields) :], strict=True))
        grad_out = grad_out.contiguous(memory_format=passes.layout(out))
        d = torch.ops.aten.threshold_backward(grad_out, out, 0)
        needs_y, needs_shortcut, *others = ctx.needs_input_grad
        grad_shortcut = d.to(ctx.shortcut_dtype) if needs_shortcut else None
        if not (needs_y or any(others)):
            return None, grad_shortcut, *[None] * len(others)
        sum_d, sum_dy = passes.sums(d, known.y, known.mean)
        grad_q = (bias * sum_d).addcmul_(known.a, sum_dy)
        with torch.autocast(**ctx.autocast):
            u, v, *grads = excitation_grads(
                ctx.attention, s_avg, s_max, tensors, others[-len(tensors) :], grad_q
            )
        sum_g, sum_gy = q * sum_d, q * sum_dy
        for slope, value in ((u, known.m), (v, known.t)):
            if slope is not None and value is not None:
                sum_g.add_(slope)
                sum_gy.addcmul_(slope, value)
        grad_bias = sum_g.sum(0)
        grad_weight = sum_gy.sum(0).mul_(known.invstd)
        grad_y = None
        if needs_y:
            through_batch = (grad_weight, grad_bias) if ctx.batch_statistics else None
            grad_y = _grad_y(d, known, q, u, v, through_batch)
        return grad_y, grad_shortcut, grad_weight, grad_bias, None, None, None, *grads


def _grad_y(
    d: Tensor,
    known: _Known,
    q: Tensor,
    u: Tensor | None,
    v: Tensor | None,
    through_batch: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The gradient of y, (B, C, H, W); ``through_batch``: grad_gamma and grad_beta, (C,)."""
    y, a = known.y, known.a
    n = y.shape[2] * y.shape[3]
    c = torch.zeros_like(q) if u is None else (a / n) * u
    k = None
    if through_batch is not None:
        grad_weight, grad_bias = through_batch
        b = a / (len(y) * n)
        k = (b * known.invstd).mul_(grad_weight).neg_()
        c.sub_((b * grad_bias).addcmul_(k, known.mean))
    grad_y = passes.affine(d, a * q, c).to(y.dtype)
    if k is not None:
        passes.add_scaled_(grad_y, y, k)
    if v is not None and known.position is not None:
        # A channel has one position: scatter_ is deterministic where scatter_add_ is not.
        flat, index = grad_y.view(*q.shape, n), known.position[..., None]
        flat.scatter_(2, index, flat.gather(2, index) + (a * v)[..., None].to(y.dtype))
    return grad_y


def _uses_batch(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def _normalise(
    y: Tensor, norm: _BatchNorm, per_sample: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """y, shifted where it is far from zero, the norm's mean of it and 1/deviation, (C,), and m.

    m, (B, C), is how far each sample's mean is from the norm's; None without ``per_sample``. The
    running statistics are updated as BatchNorm2d does.
    """
    m = None
    if _uses_batch(norm):
        mean, var, m = passes.moments(y)
    else:
        mean, var = (t.to(passes.accumulator(y)) for t in (norm.running_mean, norm.running_var))  # type: ignore[union-attr]
    invstd = (var + norm.eps).rsqrt_()
    shift: Tensor | float = 0.0
    if passes.any_of(mean * invstd, lambda ratio: ratio.abs() > FAR):
        shift = mean.to(y.dtype)
        y = y - shift[:, None, None]
        if m is None:
            mean = mean - shift
        else:
            mean, var, m = passes.moments(y)
            invstd = (var + norm.eps).rsqrt_()
    if norm.training and norm.track_running_stats:
        _track(norm, mean + shift, var, y.numel() / y.shape[1])
    if per_sample and m is None:
        m = y.mean((2, 3), dtype=mean.dtype) - mean
    return y, mean, invstd, m if per_sample else None


def _track(norm: _BatchNorm, mean: Tensor, var: Tensor, count: float) -> None:
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
