"""How a kind of device makes the passes over feature maps: what is fast there, and how it rounds.

A CPU answers questions about values at once; an accelerator would have to be waited for.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.passes import Centred, Policy, accumulator, running_statistics, uses_batch

ROW = 1024  # the longest row whose sum in single precision is as exact as the tests ask
# Where a channel's mean is more deviations than this from zero, y is centred first: in precision
# mean(y^2) - mean^2 loses the factor's square, y*scale + offset the factor.
FAR = 32.0**0.5


class CpuPolicy(Policy):
    """The CPU: reading a value back costs nothing; batch norm's kernel scales, then shifts."""

    def centre(self, y: Tensor, norm: _BatchNorm, mode: str, track: bool) -> Centred:
        m, batch, per_sample = None, uses_batch(norm), 'avg' in mode
        if batch:
            mean, var, m = self._moments(y)
        else:
            mean, var = running_statistics(norm, y)
        shift = None
        if _any(mean.square(), lambda square: square > FAR**2 * (var + norm.eps)):
            shift = mean.to(y.dtype)
            y = y - shift[:, None, None]
            if batch:
                mean, var, m = self._moments(y)
            else:
                mean = mean - shift
        if per_sample and m is None:
            m = y.mean((2, 3), dtype=mean.dtype) - mean
        return Centred(y, shift, None, mean, None, var, m if per_sample else None)

    def _moments(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance of each channel, (C,), and each sample's mean minus it, (B, C)."""
        kind = accumulator(y)
        if y.is_contiguous() and y.dtype == kind:
            # Rows are summed in y's precision and their sums in double: mean(y^2) - mean^2 cancels.
            rows = y.flatten(2).unsqueeze(2) if y.shape[2] * y.shape[3] <= ROW else y
            means = rows.mean((2, 3)).double()
            norms = torch.linalg.vector_norm(rows, dim=-1)
            squares = norms.square_().mean((0, 2), dtype=means.dtype).div_(rows.shape[3])
            mean = means.mean(0)
            var = squares.addcmul_(mean, mean, value=-1).clamp_(min=0)
        else:
            means = y.mean((2, 3), dtype=kind).double()
            # Statistics come in the precision of the buffers; a half one would hold no variance.
            buffers = y.new_zeros(y.shape[1], dtype=kind), y.new_ones(y.shape[1], dtype=kind)
            var = torch.ops.aten.batch_norm_update_stats(y, *buffers, 0.0)[1]
            mean = means.mean(0)
        return mean.to(kind), var.to(kind), (means - mean).to(kind)

    def peak(self, y: Tensor, a: Tensor) -> Tensor:
        turned = _any(a, lambda a: a <= 0)
        if not y.is_contiguous():
            signed = y * a.sign().to(y.dtype)[:, None, None] if turned else y
            return F.adaptive_max_pool2d(signed, 1, return_indices=True)[1].flatten(1)
        flat = y.flatten(2)
        position = _first(flat, 'argmax')
        if turned:
            position = torch.where(a > 0, position, _first(flat, 'argmin')).masked_fill_(a == 0, 0)
        return position

    def extremes(self, y: Tensor, a: Tensor) -> Tensor:
        high = y.amax((2, 3)).to(a.dtype)
        if _any(a, lambda a: a < 0):
            high = torch.where(a < 0, y.amin((2, 3)).to(a.dtype), high)
        return high

    def add_relu_(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if x.dtype in (torch.float32, torch.float64) and x.dtype == shortcut.dtype:
            return torch.ops.aten._add_relu_(x, shortcut)  # type: ignore[no-any-return]
        return super().add_relu_(x, shortcut)

    def maps_in_place(self, y: Tensor, scale: Tensor) -> bool:
        return y.dtype == scale.dtype


class GpuPolicy(Policy):
    """CUDA and ROCm: nothing waits for a value; batch norm's kernel subtracts the mean first."""

    def centre(self, y: Tensor, norm: _BatchNorm, mode: str, track: bool) -> Centred:
        kind, batch, per_sample = accumulator(y), uses_batch(norm), 'avg' in mode
        track = track and norm.momentum is not None and norm.running_mean is not None
        if batch:
            kept = (norm.running_mean, norm.running_var) if track else (None, None)
            found = torch.ops.aten.batch_norm_update_stats(y, *kept, norm.momentum or 0.0)
            mean, var = (statistic.to(kind) for statistic in found)
        else:
            mean, var = running_statistics(norm, y)
        if not mode:  # as exact as torch's own batch norm
            return Centred(y, None, mean[None], mean, None, var, None, track)
        n = y.shape[2] * y.shape[3]
        if y.is_contiguous():
            pivot = mean.repeat(len(y), 1)
            if not (batch or per_sample):
                return Centred(y, None, pivot, mean, None, var, None)
            ones = y.new_ones(()).expand_as(y)
            averages = self.sums(ones, y, pivot)[1].div_(n)
            rest = averages.mean(0) if batch else None
            return Centred(y, None, pivot, mean, rest, var, averages, track)
        shift = None
        if y.dtype == kind:  # half precision is far less exact than sums over it
            shift = mean
            y = y - shift[:, None, None]
            mean = torch.zeros_like(mean)
        if not per_sample and (shift is None or not batch):
            return Centred(y, shift, None, mean, None, var, None, track)
        averages = y.mean((2, 3), dtype=kind)
        if batch:
            mean = averages.mean(0)
        return Centred(y, shift, None, mean, None, var, averages - mean, track)

    def peak(self, y: Tensor, a: Tensor) -> Tensor:
        flat = y.flatten(2)
        # Two searches read less than one in a map that is multiplied by a's sign first.
        return torch.where(a > 0, flat.argmax(2), flat.argmin(2)).masked_fill_(a == 0, 0)

    def extremes(self, y: Tensor, a: Tensor) -> Tensor:
        low, high = torch.aminmax(y.flatten(2), dim=2)
        return torch.where(a < 0, low, high).to(a.dtype)


class MetaPolicy(CpuPolicy):
    """Tensors without values, on which memory is counted: as on a CPU, near zero, weights > 0."""

    def peak(self, y: Tensor, a: Tensor) -> Tensor:
        return y.flatten(2).argmax(2)


POLICIES: dict[str, Policy] = {'cpu': CpuPolicy(), 'cuda': GpuPolicy(), 'meta': MetaPolicy()}


def policy_of(y: Tensor) -> Policy:
    """The policy of the device that y is on."""
    return POLICIES[y.device.type]


def _first(flat: Tensor, kind: str) -> Tensor:
    """Position of the maximum or minimum of each row, (B, C, n) to (B, C); on the CPU."""
    if flat.dtype == torch.float32:
        # NumPy's is vectorised, which torch's is not.
        return torch.from_numpy(getattr(flat.numpy(), kind)(2))
    return getattr(flat, kind)(2)  # type: ignore[no-any-return]


def _any(values: Tensor, holds: Callable[[Tensor], Tensor]) -> bool:
    return not values.is_meta and bool(holds(values).any())
