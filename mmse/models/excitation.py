"""The excitation of the fused tail and its gradients, on (B, C) numbers.

::

    s = fuse(s_avg, s_max)    h = fc1(s)    z = fc2(act(h))    g = gate(z / T)    q = gain(g)

This is ``ChannelAttention.excite`` with the tensors that the autograd function of the tail was
given. The gradients are written by hand: autograd would run the excitation once more, with a
hundred operations that are over before the next is launched.
"""

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmse.models import functional
from mmse.models.attention import ChannelAttention

ops = torch.ops.aten
Tensors = Mapping[str, Tensor]

ACTIVATION_GRADS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'silu': ops.silu_backward,
    'relu': lambda grad, h: ops.threshold_backward(grad, h, 0),
}
GATE_GRADS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'sigmoid': ops.sigmoid_backward,
    'hardsigmoid': lambda grad, g: ops.hardtanh_backward(grad / 6, g, 0, 1),
}


class Excited(NamedTuple):
    """What the gradients need of the excitation."""

    s: Tensor  # (B, C), as z and g
    h: Tensor  # (B, hidden), as act(h)
    hidden: Tensor
    z: Tensor | None  # where T is learned
    g: Tensor
    weights: Tensor | None  # of average and maximum, (2,), where they are learned


def tensors_of(module: nn.Module, prefix: str = '') -> dict[str, Tensor]:
    """The tensors that a module and its children compute with, by their names.

    They are what the attributes hold: FSDP and ``torch.func.functional_call`` put tensors there
    that are no parameters of the module.
    """
    attributes = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
    found = {**module._parameters, **attributes}
    tensors = {f'{prefix}{name}': value for name, value in found.items() if value is not None}
    for name, child in module._modules.items():
        if child is not None:
            tensors |= tensors_of(child, f'{prefix}{name}.')
    return tensors


def excite(
    attention: ChannelAttention, squeezed: Tensor, tensors: Tensors
) -> tuple[Tensor, Excited]:
    """The gain of each channel, (B, C), and what its gradients need.

    It computes in the precision of the layers. The attention's watcher is shown the gate and what
    it is made from.

    Args:
        attention: The attention.
        squeezed: Average and maximum of each channel, or one of them, (S, B, C).
        tensors: What ``tensors_of`` gives.
    """
    settings, weight = attention.settings, tensors['fc1.weight']
    squeezed = squeezed.to(weight.dtype)
    logits, weights = tensors.get('fusion_logits'), None
    if len(squeezed) == 1:
        s = squeezed[0]
    elif logits is None:
        s = squeezed.sum(0)
    else:
        weights = logits.softmax(0).to(weight.dtype)
        s = (weights @ squeezed.flatten(1)).view_as(squeezed[0])
    h = F.linear(s, weight, tensors.get('fc1.bias'))
    hidden = functional.ACTIVATIONS[settings.act](h)
    z = F.linear(hidden, tensors['fc2.weight'], tensors.get('fc2.bias'))
    raw = tensors.get('raw_temperature')
    g = functional.gate(z, settings.gate, settings.temperature if raw is None else F.softplus(raw))
    if attention.watcher is not None:
        attention.watcher(g.detach(), squeezed.detach())
    q = functional.gain(g, settings.residual, tensors.get('alpha', attention.alpha))
    return q, Excited(s, h, hidden, None if raw is None else z, g, weights)


def excitation_grads(
    attention: ChannelAttention,
    squeezed: Tensor,
    excited: Excited,
    tensors: Tensors,
    needed: Container[str],
    grad_gain: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of the excitation's inputs.

    Args:
        attention: The attention.
        squeezed: As ``excite`` got it.
        excited: What ``excite`` gave.
        tensors: As ``excite`` got them.
        needed: Names of the tensors whose gradients are asked for.
        grad_gain: Gradient of the gain, (B, C), in at least single precision.

    Returns:
        The gradient of ``squeezed``, in the precision of ``grad_gain``, and those of the tensors
        that are needed.
    """
    settings, (s, h, hidden, z, g, weights) = attention.settings, excited
    grads: dict[str, Tensor] = {}
    grad = grad_gain.to(g.dtype)
    if settings.residual:
        alpha = tensors.get('alpha', attention.alpha)
        if isinstance(alpha, Tensor) and 'alpha' in needed:
            grads['alpha'] = _dot(grad, g).view_as(alpha)
        grad = grad * alpha  # type: ignore[operator]
    grad = GATE_GRADS[settings.gate](grad, g)
    if z is not None:
        raw = tensors['raw_temperature']
        temperature = F.softplus(raw)
        if 'raw_temperature' in needed:
            slope = _dot(grad, z) / temperature.square()
            grads['raw_temperature'] = -slope * raw.sigmoid()
        grad = grad / temperature
    elif settings.temperature != 1:
        grad = grad / settings.temperature
    grad = _linear_grads('fc2', hidden, grad, tensors, needed, grads)
    grad = ACTIVATION_GRADS[settings.act](grad, h)
    grad = _linear_grads('fc1', s, grad, tensors, needed, grads)
    if weights is None:
        return grad.to(grad_gain.dtype).expand_as(squeezed), grads
    if 'fusion_logits' in needed:
        # Not flatten, which has no rule for a batch of gradients.
        of_weights = squeezed.to(grad.dtype).reshape(len(squeezed), -1) @ grad.reshape(-1)
        grads['fusion_logits'] = ops._softmax_backward_data(of_weights, weights, 0, weights.dtype)
    return (weights[:, None, None] * grad).to(grad_gain.dtype), grads


def _linear_grads(
    layer: str,
    x: Tensor,
    grad: Tensor,
    tensors: Tensors,
    needed: Container[str],
    grads: dict[str, Tensor],
) -> Tensor:
    """Put the gradients of a linear layer's weight and bias into ``grads``; return that of x."""
    weight, bias = f'{layer}.weight', f'{layer}.bias'
    if weight in needed:
        grads[weight] = grad.t() @ x
    if bias in needed:
        grads[bias] = grad.sum(0)
    return grad @ tensors[weight]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))
