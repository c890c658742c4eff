"""Passes over a feature map, each reading it once where torch has a kernel that can.

What :mod:`mmse.models.fused` is made of. Numbers a sample and channel are (B, C), and in at least
single precision (:func:`accumulator`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROW = 1024  # the longest row whose sum in single precision is as exact as the tests ask


def moments(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel, (C,); each sample's mean less the channel's, (B, C)."""
    kind = accumulator(y)
    if y.is_cpu and y.is_contiguous() and y.dtype == kind:
        # Rows are summed in y's precision and their sums in double: mean(y^2) - mean^2 cancels.
        rows = y.flatten(2).unsqueeze(2) if y.shape[2] * y.shape[3] <= ROW else y
        means = rows.mean(-1).double().mean(-1)
        norms = torch.linalg.vector_norm(rows, dim=-1).double()
        squares = norms.square().mean((0, 2)) / rows.shape[3]
        var = (squares - means.mean(0).square()).clamp(min=0)
    else:
        means = y.mean((2, 3), dtype=kind).double()
        var = torch.ops.aten.batch_norm_update_stats(y, None, None, 0.0)[1]
    mean = means.mean(0)
    return mean.to(kind), var.to(kind), (means - mean).to(kind)


def peak(y: Tensor, a: Tensor) -> Tensor:
    """Position, (B, C), where a*y is largest: the first of several, so the first where a is 0."""
    flat, sign = y.flatten(2), a.sign().to(y.dtype)[:, None]  # (C, 1)
    if not y.is_contiguous():
        signed = y * sign[..., None] if any_of(a <= 0) else y
        return F.adaptive_max_pool2d(signed, 1, return_indices=True)[1].flatten(1)
    n = flat.shape[2]
    if n < 128:
        return (flat * sign).argmax(2)
    # amax is vectorised and argmax is not: find the best of some windows, and the place in it.
    count = int(n**0.5 / 2)
    step = n // count
    windows = flat.unfold(2, n - step * (count - 1), step)
    best = windows.amax(3)
    if any_of(a < 0):
        best = torch.where(sign < 0, windows.amin(3), best)
    chosen = (best * sign).argmax(2)
    rows, channels = (torch.arange(size, device=y.device) for size in chosen.shape)
    window = windows[rows[:, None], channels, chosen]
    return (window * sign).argmax(2) + chosen * step


def extremes(y: Tensor, a: Tensor) -> Tensor:
    """The value of y where a*y is largest, without its position; any value where a is 0."""
    high = y.amax((2, 3)).to(a.dtype)
    return torch.where(a < 0, y.amin((2, 3)).to(a.dtype), high) if any_of(a < 0) else high


def values_at(y: Tensor, position: Tensor) -> Tensor:
    """The value of each sample and channel at its position, (B, C)."""
    return y.flatten(2).gather(2, position.long()[..., None]).squeeze(2).to(accumulator(y))


def affine(y: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """y*scale + offset with (B, C) factors, in y's precision or, where it is higher, theirs."""
    if y.is_contiguous():
        # Batch norm with mean 0 and variance 1 is the affine map that reads y once.
        zero, one = torch.zeros_like(scale).flatten(), torch.ones_like(scale).flatten()
        flat = y.view(1, scale.numel(), -1)
        return F.batch_norm(flat, zero, one, scale.flatten(), offset.flatten(), eps=0.0).view_as(y)
    return torch.addcmul(offset[..., None, None], y, scale[..., None, None])


def sums(d: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """sum_hw(d) and sum_hw(d*(y - mean)), (B, C) each."""
    # What the backward pass of a batch norm with this mean and variance 1 gives bias and weight.
    batch, channels = y.shape[:2]
    if d.is_contiguous() and y.is_contiguous():  # all maps are channels of one sample
        mean = mean.repeat(batch)
        maps = [(d.view(1, len(mean), -1, 1), y.view(1, len(mean), -1, 1))]
    else:
        maps = list(zip(d.split(1), y.split(1), strict=True))
    one = torch.ones_like(mean)
    found = [
        torch.ops.aten.native_batch_norm_backward(
            d_i, y_i, one, None, None, mean, one, True, 0.0, [False, True, True]
        )
        for d_i, y_i in maps
    ]
    sum_d, sum_dy = (torch.cat([f[i] for f in found]).view(batch, channels) for i in (2, 1))
    return sum_d, sum_dy


def accumulator(y: Tensor) -> torch.dtype:
    """The precision of sums over y."""
    return torch.promote_types(y.dtype, torch.float32)


def layout(y: Tensor) -> torch.memory_format:
    """The memory format that y has, or that a copy of it is to have."""
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def any_of(mask: Tensor) -> bool:
    """Whether it holds anywhere; assumed on an accelerator, where asking would wait for it."""
    return not mask.is_cpu or bool(mask.any())
