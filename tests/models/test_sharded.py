"""Parameters sharded over two CPU processes, or wrapped otherwise: the steps are the same."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.two import batch_of, join, loss_of, run_on_two
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from mmse.models import ChannelAttention, SEResNet
from mmse.models.residual import ResidualBlock

FULL = {
    'depth': 18,
    'base_channels': 8,
    'norm_eval': False,
    'attention': {
        'residual': True,
        'learnable_alpha': True,
        'learnable_temperature': True,
    },
}
WHOLE = StateDictOptions(full_state_dict=True)
Weights = dict[str, Tensor]


def fresh(weights: Weights) -> SEResNet:
    net = SEResNet(**FULL).double()
    net.load_state_dict(weights)
    return net


def on_meta(_: Weights) -> SEResNet:
    with torch.device('meta'):
        return SEResNet(**FULL).double()


def by_block(net: SEResNet) -> SEResNet:
    for blocks in net.stages.values():
        for block in blocks:
            fully_shard(block)
    return fully_shard(net)


def by_attention(net: SEResNet) -> SEResNet:
    for _, block in net.attention_blocks():
        fully_shard(block.attention)
    return fully_shard(net)


def by_layer(net: SEResNet) -> SEResNet:
    for _, block in net.attention_blocks():
        fully_shard(block.attention.fc1)
        fully_shard(block.norm(block.last))
    return fully_shard(net)


def materialised(weights: Weights) -> SEResNet:
    net = by_block(on_meta(weights)).to_empty(device='cpu')
    net.init_weights()
    set_model_state_dict(net, dict(weights), options=WHOLE)
    for key, value in get_model_state_dict(net, options=WHOLE).items():
        assert torch.equal(value, weights[key]), key
    return net


def assigned(weights: Weights) -> SEResNet:
    net = by_block(on_meta(weights))
    shards = {
        key: distribute_tensor(weights[key], own.device_mesh, own.placements)
        if isinstance(own, DTensor)
        else weights[key].clone()
        for key, own in net.state_dict().items()
    }
    net.load_state_dict(shards, assign=True)
    return net


def older(policy: type[nn.Module], use_orig_params: bool) -> Callable[[Weights], nn.Module]:
    def wrap(weights: Weights) -> nn.Module:
        return FullyShardedDataParallel(
            fresh(weights),
            auto_wrap_policy=ModuleWrapPolicy({policy}),
            use_orig_params=use_orig_params,
            device_id=torch.device('cpu'),
        )

    return wrap


def parallel(**options: Any) -> Callable[[Weights], nn.Module]:
    return lambda weights: DistributedDataParallel(
        fresh(weights), broadcast_buffers=False, **options
    )


# The path of the blocks' tails: only what is wrapped itself is composed.
WRAPPED: dict[str, tuple[Callable[[Weights], nn.Module], str]] = {
    'by block': (lambda weights: by_block(fresh(weights)), 'fused'),
    'as one': (lambda weights: fully_shard(fresh(weights)), 'fused'),
    'by attention': (
        lambda weights: by_attention(fresh(weights)),
        'plain (FSDPChannelAttention as attention)',
    ),
    'by layer': (
        lambda weights: by_layer(fresh(weights)),
        'plain (other layers in the attention)',
    ),
    'from the meta device': (materialised, 'fused'),
    'assigned': (assigned, 'fused'),
    'FSDP1': (older(ResidualBlock, True), 'fused'),
    'FSDP1, flat parameters': (older(ResidualBlock, False), 'fused'),
    'FSDP1, by attention': (
        older(ChannelAttention, True),
        'plain (FullyShardedDataParallel as attention)',
    ),
    'DDP, static graph': (parallel(static_graph=True), 'fused'),
    'DDP, unused parameters': (parallel(find_unused_parameters=True), 'fused'),
}


def step(net: nn.Module, images: Tensor) -> Tensor:
    """One step of gradient descent; the outputs in one row."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    optimizer.zero_grad()
    outs = net(images)
    loss_of(lambda _: outs, images).backward()
    optimizer.step()
    return torch.cat([out.detach().flatten() for out in outs])


def compare(rank: int, store: str, result: str) -> None:
    """Two steps of every wrapped network and of one process's; writes what differs."""
    join(rank, store)
    torch.manual_seed(0)
    net = SEResNet(**FULL, zero_init_residual=False).double()
    net.init_weights()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    wanted = alone(net.train(), rank)
    problems = []
    for name, (wrap, path) in WRAPPED.items():
        wrapped = wrap(copy.deepcopy(weights)).train()
        paths = {m.path for m in wrapped.modules() if isinstance(m, ResidualBlock)}
        found = [step(wrapped, batch_of(rank, index)) for index in range(2)]
        wrapped.eval()
        with torch.no_grad():
            found.append(torch.cat([out.flatten() for out in wrapped(batch_of(0, 9))]))
        worst = max(
            float((got - want).abs().max() / want.abs().max())
            for got, want in zip(found, wanted, strict=True)
        )
        if paths != {path} or not worst < 1e-9:
            problems.append(f'{name}: {paths}, {worst:.1e}')
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        Path(result).write_text('\n'.join(problems))


def alone(net: SEResNet, rank: int) -> list[Tensor]:
    """What each process computes where its gradients are averaged by hand."""
    found = []
    for index in range(2):
        images = batch_of(rank, index)
        outs = net(images)
        net.zero_grad()
        loss_of(lambda _, outs=outs: outs, images).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                dist.all_reduce(parameter.grad)
                parameter -= 0.05 * parameter.grad / 2
        found.append(torch.cat([out.detach().flatten() for out in outs]))
    net.eval()
    with torch.no_grad():
        found.append(torch.cat([out.flatten() for out in net(batch_of(0, 9))]))
    return found


@pytest.mark.slow
def test_a_step_equals_that_of_whole_parameters(tmp_path: Path) -> None:
    assert run_on_two(compare, tmp_path) == ''
