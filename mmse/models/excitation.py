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


def excitation_grads(
    attention: ChannelAttention,
    s_avg: Tensor | None,
    s_max: Tensor | None,
    tensors: Mapping[str, Tensor],
    needed: Sequence[bool],
    grad_gain: Tensor,
) -> list[Tensor | None]:
    """Gradients of the excitation's inputs.

    Args:
        attention: The attention.
        s_avg: Average of each channel, (B, C), or None.
        s_max: Maximum of each channel, (B, C), or None.
        tensors: What ``tensors_of`` gave in the forward pass.
        needed: Which of them need a gradient.
        grad_gain: Gradient of the gain, (B, C), in at least single precision.

    Returns:
        The gradient of s_avg and of s_max in the precision of ``grad_gain``, then those of
        ``tensors``; None where the gain does not depend on one, or none is needed.
    """
    with torch.enable_grad():
        s_avg, s_max = (None if s is None else s.detach().requires_grad_() for s in (s_avg, s_max))
        values = [
            tensor.detach().requires_grad_(need)
            for tensor, need in zip(tensors.values(), needed, strict=True)
        ]
        twin = _with_tensors(attention, dict(zip(tensors, values, strict=True)))
        twin.watcher = None
        gain = twin.excite(s_avg, s_max)
    inputs = [s_avg, s_max, *values]
    grads: list[Tensor | None] = [None] * len(inputs)
    if not gain.requires_grad:
        return grads
    there = {i: t for i, t in enumerate(inputs) if t is not None and t.requires_grad}
    found = torch.autograd.grad(
        gain, list(there.values()), grad_gain.to(gain.dtype), allow_unused=True
    )
    for i, grad in zip(there, found, strict=True):
        grads[i] = grad.to(grad_gain.dtype) if grad is not None and i < 2 else grad
    return grads


def _with_tensors(module: Module, values: Mapping[str, Tensor], prefix: str = '') -> Module:
    """A shallow copy of a module that computes with other tensors, named as in ``tensors_of``."""
    twin = copy.copy(module)
    own = vars(twin)
    tensors: dict[str, Tensor | None] = dict.fromkeys(module._parameters)
    for key, value in values.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and '.' not in name:
            own.pop(name, None)
            tensors[name] = value
    children = {
        name: None if child is None else _with_tensors(child, values, f'{prefix}{name}.')
        for name, child in module._modules.items()
    }
    own.update(_parameters=tensors, _modules=children)
    return twin
