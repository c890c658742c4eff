"""Measurements: times side by side, bytes kept for the backward pass, peak memory."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Ratio:
    """The time of one network over that of another, round by round.

    Args:
        median: Median over the rounds.
        low: Lower quartile.
        high: Upper quartile.
    """

    median: float
    low: float
    high: float


def interleaved(
    functions: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Time functions side by side: every round runs each of them once, in turn.

    Whatever else the machine does then slows all of them alike. The order is rotated by one from
    round to round, so that no function always comes first. Two rounds of warm-up are not counted.

    Args:
        functions: The functions by name.
        rounds: Number of counted rounds.
        device: Where the functions compute.

    Returns:
        Seconds of each function in each round.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-2, rounds):
        for shift in range(len(names)):
            name = names[(index + shift) % len(names)]
            _wait(device)
            start = time.perf_counter()
            functions[name]()
            _wait(device)
            if index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def ratio(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Median and quartiles of the ratio of two networks' times.

    Args:
        seconds: Times of the one in each round, at least two.
        others: Times of the other in the same rounds.
    """
    ratios = [a / b for a, b in zip(seconds, others, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return Ratio(median, low, high)


def total(outputs: Any) -> Tensor:
    """One number that depends on every output, as a loss does.

    Args:
        outputs: A tensor, or tensors in sequences and mappings, nested or not.
    """
    if isinstance(outputs, Tensor):
        return outputs.float().sum()
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return sum((total(value) for value in values), start=torch.zeros(()))


def training_step(net: nn.Module, forward: Callable[[], Any]) -> Callable[[], None]:
    """A training step without the optimizer's, which takes every network the same time."""

    def step() -> None:
        net.zero_grad(set_to_none=True)
        torch.autograd.backward(total(forward()))

    return step


def saved_bytes(net: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that a training step keeps for the backward pass.

    Every storage that autograd saves counts once. Parameters do not count, because they are in
    memory anyway.

    Args:
        net: The network, whose parameters are not counted.
        forward: Runs it and returns its outputs.
    """
    # Not data_ptr(), which is 0 for all tensors on the meta device.
    parameters = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = tensor.detach()  # alive, so that its address is not reused
        return tensor.detach()  # a node that keeps its own output with its history never dies

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = total(forward())
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return size


def peak_memory(step: Callable[[], None], device: torch.device) -> int | None:
    """Bytes of CUDA memory that a step allocates at its peak, beyond what is held before it.

    None without CUDA.
    """
    if device.type != 'cuda':
        return None
    step()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
