"""Synchronised batch norm on CPUs, which torch's own refuses; its messages are those of torch's."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Exchange(torch.autograd.Function):
    """Batch norm over all processes, written after ``torch.nn.modules._functions``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module) -> Tensor:
        flat = x.transpose(0, 1).flatten(1)
        own = torch.cat(
            [
                flat.mean(1),
                (flat.var(1, correction=0) + norm.eps).rsqrt(),
                flat.new_full((1,), flat.shape[1]),
            ]
        )
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        channels = len(weight)
        counts = torch.stack([part[-1] for part in parts])
        means = torch.stack([part[:channels] for part in parts])
        variances = torch.stack([part[channels:-1].pow(-2) - norm.eps for part in parts])
        mean = (counts[:, None] * means).sum(0) / counts.sum()
        squares = variances + (means - mean).square()
        var = (counts[:, None] * squares).sum(0) / counts.sum()
        total = float(counts.sum())
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * total / (total - 1), norm.momentum)
        invstd = (var + norm.eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.total = total
        scale = (invstd * weight)[:, None, None]
        return (x - mean[:, None, None]) * scale + bias[:, None, None]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        centred = x - mean[:, None, None]
        own = torch.cat([grad.sum((0, 2, 3)), (grad * centred).sum((0, 2, 3))])
        both = own.clone()
        dist.all_reduce(both)
        sum_g, sum_gy = both.view(2, -1, 1, 1) / ctx.total
        inner = grad - sum_g - centred * invstd.square()[:, None, None] * sum_gy
        channels = len(weight)
        grad_x = inner * (invstd * weight)[:, None, None]
        return grad_x, own[channels:] * invstd, own[:channels], None


class SyncNorm(nn.SyncBatchNorm):
    """What ``nn.SyncBatchNorm`` computes on GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        return _Exchange.apply(x, self.weight, self.bias, self)
