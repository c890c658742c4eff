"""Statistics of a norm that several processes share, as ``torch.nn.SyncBatchNorm`` exchanges them.

The messages have the form of torch's own, one each way, so that a process whose block is composed
of its modules works together with others whose blocks are fused.
"""

from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.passes import Centred

Group: TypeAlias = Any  # torch without distributed has no ProcessGroup


def group_of(norm: _BatchNorm) -> Group | None:
    """The processes that a norm shares its statistics with now; None where it is on its own."""
    if not (isinstance(norm, nn.SyncBatchNorm) and norm.training):
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def merge(found: Centred, count: float, eps: float, group: Group) -> tuple[Centred, Tensor]:
    """The statistics over all processes, and the number of values of a channel in them, (1,).

    Args:
        found: The statistics of this process.
        count: The number of values of a channel in it.
        eps: The norm's.
        group: The processes.
    """
    mean = found.mean
    own = torch.cat((mean, (found.var + eps).rsqrt(), mean.new_full((1,), count)))
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    both = torch.stack(parts)
    means, invstds, counts = both[:, : len(mean)], both[:, len(mean) : -1], both[:, -1:]
    total = counts.sum(0)
    shares = counts / total
    merged = (shares * means).sum(0)
    # A process without images sends zeros: its variance must not become infinite times zero.
    variances = torch.where(counts > 0, invstds.square().reciprocal() - eps, 0)
    var = (shares * (variances + (means - merged).square())).sum(0)
    # What the averages are about stays; only the mean's distance from it is another one.
    return found._replace(rest=_less(merged, found), var=var.clamp_(min=0)), total


def _less(mean: Tensor, found: Centred) -> Tensor:
    """A mean of maps as they came, less what the averages are about, (C,)."""
    if found.shift is not None:
        mean = mean - found.shift
    return mean - found.about


def add_up(sum_g: Tensor, sum_gy: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """The two sums of a norm's backward pass, (C,) each, over all processes."""
    both = torch.cat((sum_g, sum_gy))
    dist.all_reduce(both, group=group)
    return both[: len(sum_g)], both[len(sum_g) :]
