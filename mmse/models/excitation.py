"""Gradients of the excitation, computed again from its inputs.

The fused tail keeps the squeezed descriptors, (B, C), and runs the excitation once more in its
backward pass, where ordinary autograd differentiates it, whatever modules it is made of. It runs
on detached parameters, because hooks of the parameters belong to the outer graph.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmse.models.attention import ChannelAttention

Module = TypeVar('Module', bound=nn.Module)


def learned_parameters(attention: ChannelAttention) -> list[nn.Parameter]:
    """The parameters that have a gradient, in the order of ``parameters()``."""
    return [p for p in attention.parameters() if p.requires_grad]


def excitation_grads(
    attention: ChannelAttention,
    s_avg: Tensor | None,
    s_max: Tensor | None,
    learned: Sequence[Tensor],
    grad_gain: Tensor,
) -> list[Tensor | None]:
    """Gradients of the excitation's inputs.

    Args:
        attention: The attention.
        s_avg: Average of each channel, (B, C), or None.
        s_max: Maximum of each channel, (B, C), or None.
        learned: The values of ``learned_parameters``.
        grad_gain: Gradient of the gain, (B, C), in at least single precision.

    Returns:
        The gradient of s_avg and of s_max in the precision of ``grad_gain``, then those of the
        parameters; None where the gain does not depend on one.
    """
    with torch.enable_grad():
        s_avg, s_max = (None if s is None else s.detach().requires_grad_() for s in (s_avg, s_max))
        values = [value.detach().requires_grad_() for value in learned]
        originals = learned_parameters(attention)
        copies = {id(p): value for p, value in zip(originals, values, strict=True)}
        twin = _with_parameters(attention, copies)
        twin.watcher = None
        gain = twin.excite(s_avg, s_max)
    inputs = [s_avg, s_max, *values]
    grads: list[Tensor | None] = [None] * len(inputs)
    if not gain.requires_grad:
        return grads
    there = {i: tensor for i, tensor in enumerate(inputs) if tensor is not None}
    found = torch.autograd.grad(
        gain, list(there.values()), grad_gain.to(gain.dtype), allow_unused=True
    )
    for i, grad in zip(there, found, strict=True):
        grads[i] = grad.to(grad_gain.dtype) if grad is not None and i < 2 else grad
    return grads


def _with_parameters(module: Module, values: Mapping[int, Tensor]) -> Module:
    """A shallow copy of a module with other tensors in the place of some of its parameters."""
    twin = copy.copy(module)
    parameters = {
        name: values.get(id(p), p) if p is not None else None
        for name, p in module._parameters.items()
    }
    children = {
        name: _with_parameters(child, values) if child is not None else None
        for name, child in module._modules.items()
    }
    vars(twin).update(_parameters=parameters, _modules=children)
    return twin
