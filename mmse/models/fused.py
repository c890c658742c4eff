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

Only y and out are kept for the backward pass, as in a ResNet without attention. The passes over
whole maps are in ``mmse.models.eager``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import eager, passes, synchronised
from mmse.models.attention import ChannelAttention
from mmse.models.eager import Squeezed
from mmse.models.excitation import Excited, excitation_grads, excite, tensors_of
from mmse.models.versions import without_autocast
from mmse.utils.errors import UserError


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
    tensors = tensors_of(attention)
    if torch.is_grad_enabled():
        inputs = (y, shortcut, norm.weight, norm.bias, norm, attention)
        out: Tensor = _Tail.apply(*inputs, tuple(tensors), *tensors.values())  # type: ignore[no-untyped-call]
        return out
    with without_autocast(y.device.type):
        group = synchronised.group_of(norm)
        known = eager.squeeze(y, norm, attention.settings.squeeze, False, group)
        q, _ = excite(attention, known.descriptors(), tensors)
        return eager.apply(known, q.to(known.a.dtype), shortcut, in_place=reuse)[0]


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
        ctx.attention, ctx.names = attention, names
        ctx.through_batch, ctx.group = passes.uses_batch(norm), synchronised.group_of(norm)
        ctx.shortcut_dtype = shortcut.dtype
        with without_autocast(y.device.type):
            squeeze = attention.settings.squeeze
            known = eager.squeeze(y, norm, squeeze, True, ctx.group)
            squeezed = known.descriptors()
            gain, excited = excite(attention, squeezed, dict(zip(names, tensors, strict=True)))
            q = gain.to(known.a.dtype)
            out, scale = eager.apply(known, q, shortcut)
        ctx.save_for_backward(out, q, scale, squeezed, *known, *excited, *tensors)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UserError(
                'the fused attention has no second derivative (create_graph=True was given); '
                'build the backbone with fused=False'
            )
        with without_autocast(grad_out.device.type):
            return _grads(ctx, grad_out)


def _grads(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the arguments of ``_Tail.forward``."""
    out, q, scale, squeezed, *rest = ctx.saved_tensors
    known, rest = Squeezed(*rest[: len(Squeezed._fields)]), rest[len(Squeezed._fields) :]
    excited, rest = Excited(*rest[: len(Excited._fields)]), rest[len(Excited._fields) :]
    tensors = dict(zip(ctx.names, rest, strict=True))
    squeeze = ctx.attention.settings.squeeze
    needs_y, needs_shortcut, *others = ctx.needs_input_grad
    grad_out = grad_out.contiguous(memory_format=passes.layout(out))
    d, sum_d, sum_dy = eager.reduce_backward(grad_out, out, known, per_sample=True)
    grad_shortcut = d.to(ctx.shortcut_dtype) if needs_shortcut else None
    if not (needs_y or any(others)):
        return None, grad_shortcut, *[None] * len(others)
    grad_q = (known.at * sum_d).addcmul_(known.a, sum_dy)
    needed = [name for name, need in zip(tensors, others[-len(tensors) :], strict=True) if need]
    slopes, grads = excitation_grads(ctx.attention, squeezed, excited, tensors, needed, grad_q)
    sum_g, sum_gy = eager.norm_grads(known, q, slopes, sum_d, sum_dy)
    grad_weight, grad_y = sum_gy * known.invstd, None
    if needs_y:
        through_batch = (sum_g, grad_weight) if ctx.through_batch else None
        if ctx.group is not None:
            total_g, total_gy = synchronised.add_up(sum_g, sum_gy, ctx.group)
            through_batch = total_g, total_gy * known.invstd
        u = slopes[0] if 'avg' in squeeze else None
        v = slopes[-1] if 'max' in squeeze else None
        grad_y = eager.apply_backward(d, known, scale, u, v, through_batch)
    own = [grads.get(name) for name in tensors]
    return grad_y, grad_shortcut, grad_weight, sum_g, None, None, None, *own
