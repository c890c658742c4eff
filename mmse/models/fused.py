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

Without attention and shortcut the same function is norm and relu (``norm_relu``). Its result is not
kept at all: whoever needs it in the backward pass has it computed once more (``output_again``).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import eager, passes
from mmse.models.attention import ChannelAttention
from mmse.models.eager import Squeezed
from mmse.models.excitation import Excited, excitation_grads, excite, tensors_of
from mmse.models.kernel_support import DTYPES
from mmse.models.synchronised import group_of
from mmse.models.versions import untraced, without_autocast
from mmse.utils.errors import UserError

Again = Callable[[], Tensor]


@untraced
def fused_tail(
    y: Tensor,
    shortcut: Tensor,
    norm: _BatchNorm,
    attention: ChannelAttention | None,
    reuse: bool = False,
    again: Again | None = None,
    kernels: bool = False,
) -> Tensor:
    """relu(attention(norm(y)) + shortcut), with the norm's running statistics updated.

    Args:
        y: Output of the last convolution, (B, C, H, W), with more than one value per channel.
        shortcut: What is added, (B, C, H, W).
        norm: The branch's last norm, with weight and bias.
        attention: The block's attention; None for none.
        reuse: The result may take y's memory where no gradients are computed.
        again: Computes y once more in the backward pass, so that y is not kept.
        kernels: By the Triton kernels, where they compute this norm in y's precision.

    Raises:
        UserError: when the result is differentiated twice.
        ValueError: as the norm's, for an input of other dimensions than the norm takes.
    """
    steps = _steps(y, norm, attention, kernels)
    if torch.is_grad_enabled():
        return _apply(y, shortcut, norm, attention, again, steps)
    norm._check_input_dim(y)  # type: ignore[no-untyped-call]
    with without_autocast(y.device.type):
        mode = '' if attention is None else attention.settings.squeeze
        known, q = steps.squeeze(y, norm, mode, False, group_of(norm)), None
        if attention is not None:
            gain, _ = excite(attention, known.descriptors(), tensors_of(attention))
            q = gain.to(passes.accumulator(y))
        out: Tensor = steps.apply(known, q, shortcut, in_place=reuse)
        return out


def _steps(y: Tensor, norm: _BatchNorm, attention: ChannelAttention | None, kernels: bool) -> Any:
    """The module whose functions are the steps of the tail."""
    if not kernels or attention is None or y.dtype not in DTYPES or group_of(norm) is not None:
        return eager
    from mmse.models import kernel_calls  # needs Triton

    return kernel_calls


@untraced
def norm_relu(y: Tensor, norm: _BatchNorm) -> Tensor:
    """relu(norm(y)), (B, C, H, W), which keeps y alone for the backward pass.

    Raises:
        UserError: when the result is differentiated twice.
        ValueError: as the norm's, for an input of other dimensions than the norm takes.
    """
    return _apply(y, None, norm, None, None, eager)


def output_again(node: Any) -> Tensor:
    """What ``norm_relu`` returned, given the result's ``grad_fn``, in its backward pass."""
    if node.output is None:
        # Checkpointing around the network lets a node read them once.
        node.read = node.saved_tensors
        node.output = _norm_relu_again(node.read)
    output: Tensor = node.output
    return output


def _norm_relu_again(saved: tuple[Tensor, ...]) -> Tensor:
    known = Squeezed(*saved[: len(Squeezed._fields)])
    with torch.no_grad(), without_autocast(known.about.device.type):
        return eager.apply(known, None, None)


def _apply(
    y: Tensor,
    shortcut: Tensor | None,
    norm: _BatchNorm,
    attention: ChannelAttention | None,
    again: Again | None,
    steps: Any,
) -> Tensor:
    norm._check_input_dim(y)  # type: ignore[no-untyped-call]
    tensors = {} if attention is None else tensors_of(attention)
    inputs = (steps, again, y, shortcut, norm.weight, norm.bias, norm, attention, tuple(tensors))
    out: Tensor = _Tail.apply(*inputs, *tensors.values())  # type: ignore[no-untyped-call]
    return out


class _Tail(torch.autograd.Function):
    """The tail with gradients; everything that the result depends on is an input."""

    @staticmethod
    def forward(
        ctx: Any,
        steps: Any,
        again: Again | None,
        y: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        norm: _BatchNorm,
        attention: ChannelAttention | None,
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> Tensor:
        ctx.steps, ctx.again, ctx.attention, ctx.names = steps, again, attention, names
        ctx.output = ctx.read = None
        ctx.batch, ctx.group = passes.uses_batch(norm), group_of(norm)
        ctx.shortcut_dtype = None if shortcut is None else shortcut.dtype
        kept: list[Tensor | None] = []
        with without_autocast(y.device.type):
            mode, q = '' if attention is None else attention.settings.squeeze, None
            known = steps.squeeze(y, norm, mode, True, ctx.group)
            ctx.kind, ctx.fields = type(known), len(known)
            fields = [None if value is known.shift else value for value in known]
            if attention is not None:
                given = dict(zip(names, tensors, strict=True))
                gain, excited = excite(attention, known.descriptors(), given)
                q = gain.to(passes.accumulator(y))
                kept = [q, *excited, *tensors]
            out = steps.apply(known, q, shortcut)
        # Only a y that is not shifted is what the convolution computes again.
        if again is None or known.shift is not None:
            ctx.again = None
        else:
            fields[0] = None
        ctx.save_for_backward(*fields, None if shortcut is None else out, *kept)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UserError(
                'the fused attention and recompute have no second derivative (create_graph=True '
                'was given); build the backbone with fused=False and without recompute'
            )
        with without_autocast(grad_out.device.type):
            return None, None, *_grads(ctx, grad_out)


def _grads(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the arguments of ``_Tail.forward``, from y on."""
    saved = ctx.saved_tensors if ctx.read is None else ctx.read
    known, (out, *kept) = ctx.kind(*saved[: ctx.fields]), saved[ctx.fields :]
    if out is None:
        out = _norm_relu_again(saved) if ctx.output is None else ctx.output
        ctx.output = ctx.read = None
    needs_y, needs_shortcut, *others = ctx.needs_input_grad[2:]
    grad_out = grad_out.contiguous(memory_format=passes.layout(out))
    if not (needs_y or any(others)):
        d = torch.ops.aten.threshold_backward(grad_out, out, 0)
        return None, d.to(ctx.shortcut_dtype), *[None] * len(others)
    if ctx.again is not None:
        known = known._replace(y=ctx.again())
    if ctx.attention is None and ctx.group is None:
        d = torch.ops.aten.threshold_backward(grad_out, out, 0)
        found = eager.plain_gradients(d, known, ctx.batch, (needs_y, *others[:2]))
        grad_shortcut = d.to(ctx.shortcut_dtype) if needs_shortcut else None
        return found[0], grad_shortcut, *found[1:], None, None, None
    d, sums, grad_q = ctx.steps.reduce_backward(grad_out, out, known)
    q = slopes = None
    mode, own = '', []
    if ctx.attention is not None:
        mode = ctx.attention.settings.squeeze
        q, *kept = kept
        excited, kept = Excited(*kept[: len(Excited._fields)]), kept[len(Excited._fields) :]
        tensors = dict(zip(ctx.names, kept, strict=True))
        needed = [name for name, need in zip(tensors, others[-len(tensors) :], strict=True) if need]
        squeezed = known.descriptors()
        slopes, grads = excitation_grads(ctx.attention, squeezed, excited, tensors, needed, grad_q)
        own = [grads.get(name) for name in tensors]
    grad_y, grad_weight, grad_bias = ctx.steps.gradients(
        d, known, q, slopes, mode, sums, ctx.batch, ctx.group, needs_y
    )
    grad_shortcut = d.to(ctx.shortcut_dtype) if needs_shortcut else None
    return grad_y, grad_shortcut, grad_weight, grad_bias, None, None, None, *own
