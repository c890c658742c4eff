"""The tail of a block, from norm to relu: random ones, run plainly or fused."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from support.precision import Tensors, rounding_bars
from torch import Tensor, nn

from mmse.models import ChannelAttention

FULL = {'preset': 'sepp_v2_residual', 'learnable_temperature': True, 'alpha': 0.7}
Tail = tuple[nn.BatchNorm2d, ChannelAttention]


def plain_tail(y: Tensor, shortcut: Tensor, norm: nn.Module, attention: nn.Module) -> Tensor:
    return torch.relu(attention(norm(y)) + shortcut)


def make_tail(attention: dict[str, Any], channels: int = 24, centre: Any = 0.0, **bn: Any) -> Tail:
    """A norm with positive, negative and zero weights, and attention; all numbers random."""
    norm, module = nn.BatchNorm2d(channels, **bn), ChannelAttention(channels, **attention)
    with torch.no_grad():
        for param in (*norm.parameters(), *module.parameters()):
            param.copy_(torch.randn_like(param) * 0.6 + 0.1)
        norm.weight[::5] = 0
        if norm.running_mean is not None:
            norm.running_mean.normal_(0, 0.3).add_(centre)
            norm.running_var.uniform_(0.5, 2)
    return norm.double(), module.double()


def run_tail(
    function: Callable[..., Tensor],
    tail: Tail,
    y: Tensor,
    shortcut: Tensor,
    grad: Tensor,
    dtype: torch.dtype = torch.float64,
    layout: torch.memory_format = torch.contiguous_format,
) -> dict[str, Tensor]:
    """Output, gradients of everything that asks for one, and statistics."""
    norm, attention = (copy.deepcopy(module).to(dtype) for module in tail)
    y, shortcut = (
        t.detach().to(dtype, memory_format=layout).requires_grad_() for t in (y, shortcut)
    )
    out = function(y, shortcut, norm, attention)
    out.backward(grad.to(dtype, memory_format=layout))
    got = {'out': out.detach(), 'y': y.grad, 'shortcut': shortcut.grad}
    for prefix, module in (('norm', norm), ('attention', attention)):
        got.update({f'{prefix}.{name}': p.grad for name, p in module.named_parameters()})
        got.update({f'{prefix}.{name}': b for name, b in module.named_buffers()})
    return {name: value for name, value in got.items() if value is not None}


def tail_bars(
    tail: Tail, y: Tensor, shortcut: Tensor, grad: Tensor, exact: Tensors, **options: Any
) -> dict[str, float]:
    """What a tail may be off by in float32, with the options of `rounding_bars`."""

    def plain(scale: float, layout: torch.memory_format) -> Tensors:
        scaled = (y * scale, shortcut * scale)
        return run_tail(plain_tail, tail, *scaled, grad, torch.float32, layout)

    return rounding_bars(plain, exact, **options)


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(shape).double(), torch.randn(shape).double()


def gradient(tail: Tail, y: Tensor, shortcut: Tensor) -> Tensor:
    """A gradient of the output, zero where rounding could decide which side of 0 the relu is on."""
    norm, attention = copy.deepcopy(tail)
    with torch.no_grad():
        before = attention(norm(y)) + shortcut
    return torch.randn_like(before) * (before.abs() > 1e-2)
