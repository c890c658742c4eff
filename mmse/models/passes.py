"""Operations on whole feature maps; each reads its map once where torch has a kernel for that.

``mmse.models.fused`` is made of them. Results per sample and channel have the shape (B, C) and at
least single precision (``accumulator``).
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmse.models.versions import adds_mixed_products_in_place

ROW = 1024  # the longest row whose sum in single precision is as exact as the tests ask


def moments(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel, (C,), and the mean of each sample minus it, (B, C)."""
    kind = accumulator(y)
    if not y.is_cuda and y.is_contiguous() and y.dtype == kind:
        # Rows are summed in y's precision and their sums in double: mean(y^2) - mean^2 cancels.
        rows = y.flatten(2).unsqueeze(2) if y.shape[2] * y.shape[3] <= ROW else y
        means = rows.mean((2, 3)).double()
        norms = torch.linalg.vector_norm(rows, dim=-1)
        squares = norms.square_().mean((0, 2), dtype=means.dtype).div_(rows.shape[3])
        mean = means.mean(0)
        var = squares.addcmul_(mean, mean, value=-1).clamp_(min=0)
    else:
        means = y.mean((2, 3), dtype=kind).double()
        var = torch.ops.aten.batch_norm_update_stats(y, None, None, 0.0)[1]
        mean = means.mean(0)
    return mean.to(kind), var.to(kind), (means - mean).to(kind)


def peak(y: Tensor, a: Tensor) -> Tensor:
    """Index into the flattened map, (B, C), at which a*y is largest; the first one in a tie."""
    if not y.is_contiguous():
        signed = y * a.sign().to(y.dtype)[:, None, None] if any_of(a, _not_positive) else y
        return F.adaptive_max_pool2d(signed, 1, return_indices=True)[1].flatten(1)
    flat = y.flatten(2)
    if not y.is_cpu:
        return (flat * a.sign().to(y.dtype)[:, None]).argmax(2)
    position = _first_maximum(flat)
    if any_of(a, _not_positive):
        turned = _not_positive(a).nonzero().squeeze(1)
        part = flat[:, turned] * a[turned].sign().to(y.dtype)[:, None]
        position[:, turned] = _first_maximum(part)
    return position


def _not_positive(a: Tensor) -> Tensor:
    return a <= 0


def _first_maximum(flat: Tensor) -> Tensor:
    """Position of the maximum of each row, (B, C, n) to (B, C); on the CPU."""
    if flat.dtype == torch.float32:
        return torch.from_numpy(flat.numpy().argmax(2))  # vectorised, which torch's is not
    return flat.argmax(2)


def extremes(y: Tensor, a: Tensor) -> Tensor:
    """The value of y at which a*y is largest, (B, C); any value of y where a is 0."""
    high = y.amax((2, 3)).to(a.dtype)
    if any_of(a, lambda a: a < 0):
        high = torch.where(a < 0, y.amin((2, 3)).to(a.dtype), high)
    return high


def values_at(y: Tensor, position: Tensor) -> Tensor:
    """The value of y at one position per sample and channel, (B, C)."""
    return y.flatten(2).gather(2, position[..., None]).squeeze(2).to(accumulator(y))


def affine(y: Tensor, scale: Tensor, offset: Tensor, in_place: bool = False) -> Tensor:
    """y*scale + offset with (B, C) factors, in the higher of y's precision and theirs.

    With ``in_place`` the result takes y's memory where that is possible, which is in the CPU's
    caches already.
    """
    if y.is_contiguous():
        # Batch norm with mean 0 and variance 1 is the affine map that reads y once.
        count = scale.numel()
        zero, one = (_constant(value, count, scale.dtype, scale.device) for value in (0.0, 1.0))
        flat, scale, offset = y.view(1, count, -1), scale.reshape(count), offset.reshape(count)
        if in_place and y.is_cpu and y.dtype == scale.dtype:
            out = (flat, y.new_empty(0), y.new_empty(0))
            torch.native_batch_norm(flat, scale, offset, zero, one, False, 0.0, 0.0, out=out)
            return y
        mapped = torch.batch_norm(flat, scale, offset, zero, one, False, 0.0, 0.0, True)
        # A view that an autograd function returns could not be changed in place.
        return torch.ops.aten._unsafe_view(mapped, y.shape)  # type: ignore[no-any-return]
    return torch.addcmul(offset[..., None, None], y, scale[..., None, None])


def add_relu_(x: Tensor, shortcut: Tensor) -> Tensor:
    """relu(x + shortcut) in place of x."""
    if x.is_cpu and x.dtype in (torch.float32, torch.float64) and x.dtype == shortcut.dtype:
        return torch.ops.aten._add_relu_(x, shortcut)  # type: ignore[no-any-return]
    return x.add_(shortcut).relu_()


@lru_cache(maxsize=64)
def _constant(value: float, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((count,), value, dtype=dtype, device=device)


def sums(d: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """sum_hw(d) and sum_hw(d*(y - mean)), (B, C); mean is (C,)."""
    # What the backward pass of a batch norm with this mean and variance 1 gives.
    batch, channels = shape = y.shape[:2]
    if d.is_contiguous() and y.is_contiguous():  # all maps are channels of one sample
        maps = (t.view(1, batch * channels, -1, 1) for t in (d, y))
        sum_d, sum_dy = _norm_backward(*maps, mean.expand(shape).reshape(-1))  # type: ignore[call-arg]
        return sum_d.view(shape), sum_dy.view(shape)
    samples = zip(d.split(1), y.split(1), strict=True)  # type: ignore[no-untyped-call]
    found = [_norm_backward(*maps, mean) for maps in samples]
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def _norm_backward(d: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    one = _constant(1.0, len(mean), mean.dtype, mean.device)
    _, sum_dy, sum_d = torch.ops.aten.native_batch_norm_backward(
        d, y, one, mean, one, mean, one, False, 0.0, [False, True, True]
    )
    return sum_d, sum_dy


def add_scaled_(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    """x + k*y in place of x; x and y (B, C, H, W), k (C,), which may be more precise."""
    scale = k[:, None, None]
    if x.is_cpu and x.dtype != k.dtype and not adds_mixed_products_in_place():
        return x.copy_(torch.addcmul(x, y, scale))
    return x.addcmul_(y, scale)


def accumulator(y: Tensor) -> torch.dtype:
    """The precision of sums over y."""
    return torch.promote_types(y.dtype, torch.float32)


def layout(y: Tensor) -> torch.memory_format:
    """The memory format that y has, or that a copy of it is to have."""
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def any_of(values: Tensor, holds: Callable[[Tensor], Tensor]) -> bool:
    """Whether it holds anywhere; assumed on an accelerator, where asking would wait for it."""
    return not values.is_cpu or bool(holds(values).any())
