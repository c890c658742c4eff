"""Fused tails with synchronised norms: two processes against one that has the whole batch."""

from ast import literal_eval
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.precision import worst
from support.sync_norm import SyncNorm
from support.two import join, run_on_two
from torch import Tensor, nn

from mmse.models import ChannelAttention, SEResNet
from mmse.models.fused import fused_tail
from mmse.models.residual import ResidualBlock

SIZES = (2, 3)  # images of the two processes


def network(norm: str, recompute: str | None = None) -> SEResNet:
    torch.manual_seed(0)
    attention = {'preset': 'sepp_v2_residual', 'learnable_temperature': True}
    cfg = {'type': norm, 'requires_grad': True}
    settings = {'base_channels': 4, 'attention': attention, 'norm_cfg': cfg}
    settings['recompute'] = recompute
    net = SEResNet(50, norm_eval=False, zero_init_residual=False, **settings).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.train()


def imitated(net: SEResNet) -> list[nn.Module]:
    """The norms that are computed without being called."""
    return [
        block.norm(index)
        for block in net.modules()
        if isinstance(block, ResidualBlock)
        for index in range(1 if block.recompute else block.last, block.last + 1)
    ]


def images() -> Tensor:
    return torch.randn(sum(SIZES), 3, 64, 96, generator=torch.Generator().manual_seed(1)).double()


def results(net: SEResNet, x: Tensor, whole: bool) -> dict[str, Tensor]:
    """Outputs of all images, gradients summed over the processes, and statistics, of two steps."""
    found = {}
    rank = 0 if whole else dist.get_rank()
    mine = slice(None) if whole else slice(rank * SIZES[0], rank * SIZES[0] + SIZES[rank])
    for step in range(2):
        net.zero_grad()
        part = (x[mine] * (1 + step)).requires_grad_()
        outs = net(part)
        factors = [torch.linspace(-1, 1, out[0].numel()).view_as(out[0]) for out in outs]
        sum((out * factor).sum() for out, factor in zip(outs, factors, strict=True)).backward()
        found |= {f'{step}.{name}': p.grad for name, p in net.named_parameters()}
        if not whole:
            for parameter in net.parameters():
                dist.all_reduce(parameter.grad)
        for name, value in [*((f'out{i}', out) for i, out in enumerate(outs)), ('x', part.grad)]:
            found[f'{step}.{name}'] = value.detach() if whole else gather(value.detach())
        found |= {f'{step}.{name}': b.clone() for name, b in net.named_buffers()}
    return found


def gather(value: Tensor) -> Tensor:
    """The images of both processes in order."""
    longest = value.new_zeros(max(SIZES), *value.shape[1:])
    longest[: len(value)] = value
    parts = [torch.empty_like(longest) for _ in SIZES]
    dist.all_gather(parts, longest)
    return torch.cat([part[:size] for part, size in zip(parts, SIZES, strict=True)])


def compare(
    plain_ranks: tuple[int, ...], recompute: str | None, rank: int, store: str, result: str
) -> None:
    join(rank, store)
    net = network('SyncBN', None if rank in plain_ranks else recompute)
    fused = [] if rank in plain_ranks else imitated(net)
    for module in net.modules():
        if isinstance(module, nn.SyncBatchNorm) and module not in fused:
            module.__class__ = SyncNorm
    paths = {m.path for m in net.modules() if isinstance(m, ResidualBlock)}
    assert all(path.startswith('plain (Sync' if rank in plain_ranks else 'fused') for path in paths)
    got = results(net, images(), whole=False)
    if rank == 0:
        want = results(network('BN'), images(), whole=True)
        Path(result).write_text(repr(worst(got, want)))


def all_plain(*arguments: object) -> None:
    compare((0, 1), None, *arguments)


def all_fused(*arguments: object) -> None:
    compare((), None, *arguments)


def one_of_each(*arguments: object) -> None:
    compare((1,), None, *arguments)


def recomputed_norms(*arguments: object) -> None:
    compare((1,), 'norms', *arguments)


def recomputed_expand(*arguments: object) -> None:
    compare((), 'expand', *arguments)


CASES = [all_plain, all_fused, one_of_each, recomputed_norms, recomputed_expand]


@pytest.mark.parametrize('function', CASES)
def test_two_processes_equal_one_with_the_whole_batch(function: object, tmp_path: Path) -> None:
    """A process that composes its modules works together with one that fuses them."""
    error, name = literal_eval(run_on_two(function, tmp_path))
    assert error < 1e-9, name


def far_from_zero(rank: int, store: str, result: str) -> None:
    """Averages of the processes differ, and are far from zero, in single precision."""
    join(rank, store)
    torch.manual_seed(0)
    attention = ChannelAttention(8, preset='sepp_v2_residual')
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(5, 8, 20, 20, generator=generator) + 300
    x[:2] += 2
    mine = slice(0, 2) if rank == 0 else slice(2, 5)
    norm = nn.SyncBatchNorm(8)
    part = x[mine].clone().requires_grad_()
    out = fused_tail(part, torch.zeros_like(part), norm, attention)
    out.square().sum().backward()
    got = {'out': gather(out.detach()), 'x': gather(part.grad), 'var': norm.running_var}
    if rank == 0:
        whole = x.double().requires_grad_()
        reference = nn.BatchNorm2d(8).double()
        want = torch.relu(attention.double()(reference(whole)))
        want.square().sum().backward()
        exact = {'out': want.detach(), 'x': whole.grad, 'var': reference.running_var}
        Path(result).write_text(repr(worst(got, exact)))


def test_averages_far_from_zero(tmp_path: Path) -> None:
    """As exact as the averages that torch's messages hold, in single precision: 300 deviations."""
    error, name = literal_eval(run_on_two(far_from_zero, tmp_path))
    assert error < 300 * torch.finfo(torch.float32).eps * 4, name
