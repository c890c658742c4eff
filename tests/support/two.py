"""Two CPU processes that train together, as two GPUs would."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from support.processes import start
from torch import Tensor


def join(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)


def loss_of(model: torch.nn.Module, images: Tensor) -> Tensor:
    return sum(out.square().mean() for out in model(images))


def batch_of(rank: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)


def run_on_two(function: Callable[[int, str, str], None], tmp_path: Path) -> str:
    """Call a function in two processes, with rank, store and file of the result, and read that."""
    result = tmp_path / 'result'
    waits = [start(function, rank, str(tmp_path / 'store'), str(result)) for rank in range(2)]
    assert [wait() for wait in waits] == [0, 0]
    return result.read_text()
