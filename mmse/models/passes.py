"""Operations on whole feature maps; each reads its map once where torch has a kernel for that.

``mmse.models.eager`` is made of them; what kinds of devices do differently is in
``mmse.models.policies``. Results per sample and channel have the shape (B, C) and at least single
precision (``accumulator``).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.versions import adds_mixed_products_in_place


class Centred(NamedTuple):
    """A map and its statistics.

    Args:
        y: The map, (B, C, H, W), less ``shift`` where there is one.
        shift: What y was shifted by, (C,), or None.
        pivot: What kernels subtract from y when they read it, (B, C), or None.
        about: What averages and extremes are given relative to, (C,): the pivot, or y's mean.
        rest: The mean less ``about``, (C,); None where they are the same.
        var: The biased variance, (C,).
        averages: Each sample's average less ``about``, (B, C); None where nobody asked.
        tracked: Whether the norm's running statistics have been updated.
    """

    y: Tensor
    shift: Tensor | None
    pivot: Tensor | None
    about: Tensor
    rest: Tensor | None
    var: Tensor
    averages: Tensor | None
    tracked: bool = False

    @property
    def mean(self) -> Tensor:
        """The mean of the map as it came, (C,)."""
        mean = self.about if self.rest is None else self.about + self.rest
        return mean if self.shift is None else mean + self.shift


class Policy:
    """What both kinds of devices do alike."""

    def centre(self, y: Tensor, norm: _BatchNorm, mode: str, track: bool) -> Centred:
        """Find the statistics that a norm uses for y, and centre y where precision asks for that.

        Args:
            y: (B, C, H, W).
            norm: The norm.
            mode: Which squeeze, or ``''`` for none.
            track: Whether the running statistics are to be updated here if that saves something.
        """
        raise NotImplementedError

    def peak(self, y: Tensor, a: Tensor) -> Tensor:
        """Index into the flattened map, (B, C), at which a*y is largest; the first in a tie."""
        raise NotImplementedError

    def extremes(self, y: Tensor, a: Tensor) -> Tensor:
        """The value of y at which a*y is largest, (B, C); any value of y where a is 0."""
        raise NotImplementedError

    def add_relu_(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """relu(x + shortcut) in place of x."""
        return x.add_(shortcut).relu_()

    def affine(
        self,
        y: Tensor,
        scale: Tensor,
        offset: Tensor,
        pivot: Tensor | None = None,
        in_place: bool = False,
    ) -> Tensor:
        """(y - pivot)*scale + offset with factors (B, C) or (C,), in y's precision.

        The pivot, (B, C), is the same for all samples.

        With ``in_place`` the result takes y's memory where that is possible.
        """
        # Batch norm with variance 0 and eps 1 is the affine map that reads y once. Not by way of
        # torch.batch_norm: cuDNN's does not say what it subtracts first.
        zero = torch.zeros_like(scale).view(-1)
        if scale.dim() == 1:
            mean = zero if pivot is None else pivot[0]
            return torch.native_batch_norm(y, scale, offset, mean, zero, False, 0.0, 1.0)[0]
        if y.is_contiguous():  # all maps are channels of one sample
            mean = zero if pivot is None else pivot.view(-1)
            flat, scale, offset = y.view(1, len(zero), -1), scale.reshape(-1), offset.reshape(-1)
            if in_place and self.maps_in_place(y, scale):
                out = (flat, y.new_empty(0), y.new_empty(0))
                torch.native_batch_norm(flat, scale, offset, mean, zero, False, 0.0, 1.0, out=out)
                return y
            mapped = torch.native_batch_norm(flat, scale, offset, mean, zero, False, 0.0, 1.0)[0]
            # A view that an autograd function returns could not be changed in place.
            return torch.ops.aten._unsafe_view(mapped, y.shape)  # type: ignore[no-any-return]
        factors = offset[..., None, None], y, scale[..., None, None]
        if _casts_first(y, scale):
            return torch.addcmul(*factors).to(y.dtype)
        # The result's precision is given, so that no map is cast to that of the factors.
        return torch.addcmul(*factors, out=torch.empty_like(y))

    def maps_in_place(self, y: Tensor, scale: Tensor) -> bool:
        """Whether ``affine`` can write to the memory that it reads."""
        return False

    def add_scaled_(self, x: Tensor, y: Tensor, k: Tensor) -> Tensor:
        """x + k*y in place of x; x and y (B, C, H, W), k (C,), which may be more precise."""
        factor = k[:, None, None]
        if _casts_first(x, k):
            return x.copy_(torch.addcmul(x, y, factor))
        return x.addcmul_(y, factor)

    def sums(
        self, d: Tensor, y: Tensor, mean: Tensor, per_sample: bool = True
    ) -> tuple[Tensor, Tensor]:
        """sum(d) and sum(d*(y - mean)), (B, C), or (C,) over the samples.

        The mean, (C,) or (B, C), is the same for all samples.
        """
        batch, channels = shape = y.shape[:2]
        if per_sample and y.is_contiguous():
            maps = (t.view(1, batch * channels, -1, 1) for t in (d, y))
            sum_d, sum_dy = _norm_backward(*maps, mean.expand(shape).reshape(-1))  # type: ignore[call-arg]
            return sum_d.view(shape), sum_dy.view(shape)
        mean = mean if mean.dim() == 1 else mean[0]
        if not per_sample:
            return _norm_backward(d, y, mean)
        samples = zip(d.split(1), y.split(1), strict=True)  # type: ignore[no-untyped-call]
        found = [_norm_backward(*maps, mean) for maps in samples]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def uses_batch(norm: _BatchNorm) -> bool:
    """Whether a norm takes the statistics of the batch."""
    return norm.training or norm.running_mean is None


def count_batch(norm: _BatchNorm) -> float:
    """Count a batch if the norm counts, as BatchNorm2d does; its momentum for this batch."""
    if not (norm.training and norm.track_running_stats):
        return 0.0
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            return 1.0 / float(norm.num_batches_tracked)
    return norm.momentum or 0.0


def running_statistics(norm: _BatchNorm, y: Tensor) -> tuple[Tensor, Tensor]:
    """The running mean and variance, (C,) each, in the precision of sums over y."""
    kind = accumulator(y)
    return norm.running_mean.to(kind), norm.running_var.to(kind)  # type: ignore[union-attr]


def values_at(y: Tensor, position: Tensor) -> Tensor:
    """The value of y at one position per sample and channel, (B, C)."""
    return y.flatten(2).gather(2, position[..., None]).squeeze(2).to(accumulator(y))


def accumulator(y: Tensor) -> torch.dtype:
    """The precision of sums over y."""
    return torch.promote_types(y.dtype, torch.float32)


def layout(y: Tensor) -> torch.memory_format:
    """The memory format that y has, or that a copy of it is to have."""
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _casts_first(y: Tensor, factor: Tensor) -> bool:
    """Whether products with factors of another precision need a map of their own (torch 2.1)."""
    return y.is_cpu and y.dtype != factor.dtype and not adds_mixed_products_in_place()


def _norm_backward(d: Tensor, y: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """What the backward pass of a batch norm with this mean and deviation 1 sums, (C,) each."""
    one = torch.ones_like(mean)  # weight, variance and 1/deviation: kernels differ in what they use
    _, sum_dy, sum_d = torch.ops.aten.native_batch_norm_backward(
        d, y, one, mean, one, mean, one, False, 0.0, [False, True, True]
    )
    return sum_d, sum_dy
