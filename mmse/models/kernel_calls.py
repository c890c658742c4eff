"""The four steps of a tail, as in ``mmse.models.eager``, by the kernels of ``.kernels``."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import kernels, passes
from mmse.models.passes import count_batch

# Positions and channels of a tile; one NCHW row, several short ones, and channels_last.
LONG, SHORT, LAST = (1024, 1), (256, 4), (16, 64)
MERGED = 16  # channels of a program that merges
PARTS = 16  # slices or samples that it reads at once
PROGRAMS = 1024  # that fill a GPU
SLICES = 64
TILES = 4  # of one program that writes a map


class Squeezed(NamedTuple):
    """What the squeeze computes.

    Args:
        y: The norm's input, (B, C, H, W).
        channels: (5, C): pivot, mean less pivot, a, at, 1/deviation.
        values: y - pivot, averaged and at the maximum of a*y, (S, B, C): one of them or both.
        squeezed: The same of the norm's output.
        position: Where that maximum is in the flattened map, (B, C).
    """

    y: Tensor
    channels: Tensor
    values: Tensor
    squeezed: Tensor
    position: Tensor | None

    @property
    def shift(self) -> None:
        """The kernels subtract the pivot themselves."""

    def descriptors(self) -> Tensor:
        """Average and maximum of the norm's output, or one of them, (S, B, C)."""
        return self.squeezed


def _shape(y: Tensor) -> tuple[dict[str, Any], int, int, int]:
    """The tile of a map's layout, the samples, the length of a map, and the channels."""
    samples, c, height, width = y.shape
    last = not y.is_contiguous()
    p, k = LAST if last else LONG if height * width > SHORT[0] else SHORT
    return {'last': last, 'p': p, 'k': k}, samples, height * width, c


def _blocks(count: int, size: int) -> int:
    return -(-count // size)


def _slices(tile: dict[str, Any], samples: int, hw: int, c: int) -> int:
    """In how many slices a map is reduced."""
    wanted = PROGRAMS // (_blocks(c, tile['k']) * samples)
    return max(1, min(wanted, _blocks(hw, TILES * tile['p']), SLICES))


def _grid_of_writes(tile: dict[str, Any], samples: int, hw: int, c: int) -> tuple[int, int, int]:
    return _blocks(c, tile['k']), min(_blocks(hw, TILES * tile['p']), 65535), samples


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a kernel on the device of its first argument, which need not be the current one."""
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*arguments, **constants)


def squeeze(y: Tensor, norm: _BatchNorm, mode: str, locate: bool, group: None) -> Squeezed:
    """As ``eager.squeeze``, in two launches; the position is found in any case."""
    assert group is None
    y = y.contiguous(memory_format=passes.layout(y))
    tile, samples, hw, c = _shape(y)
    slices = _slices(tile, samples, hw, c)
    batch = passes.uses_batch(norm)
    momentum = count_batch(norm)
    update = norm.training and norm.track_running_stats and norm.running_mean is not None
    extremes, average = 'max' in mode, 'avg' in mode
    numbers: dict[str, Any] = {'dtype': torch.float32, 'device': y.device}
    parts, kinds = samples * slices * c, average + extremes
    channels = torch.empty((5, c), **numbers)
    partial = torch.empty((4, parts), **numbers)
    values, squeezed = torch.empty((2, kinds, samples, c), **numbers)
    places = torch.empty((2, parts) if extremes else (1,), dtype=torch.int32, device=y.device)
    position = torch.empty((samples, c), dtype=torch.int32, device=y.device)
    running_mean = channels if norm.running_mean is None else norm.running_mean
    running_var = channels if norm.running_var is None else norm.running_var
    grid = (_blocks(c, tile['k']), slices, samples)
    _launch(
        *(kernels.reduce_forward, grid, y),
        *(running_mean, channels, partial, places, hw, c),
        batch=batch,
        extremes=extremes,
        **tile,
    )
    _launch(
        *(kernels.merge_forward, (_blocks(c, MERGED),)),
        *(y, partial, places, norm.weight, norm.bias, running_mean, running_var),
        *(channels, values, squeezed, position, samples, slices, hw, c, norm.eps, momentum),
        batch=batch,
        update=update,
        average=average,
        extremes=extremes,
        last=tile['last'],
        s=PARTS,
        k=MERGED,
    )
    return Squeezed(y, channels, values, squeezed, position if extremes else None)


def apply(known: Squeezed, q: Tensor, shortcut: Tensor, in_place: bool = False) -> Tensor:
    """As ``eager.apply``, in one launch."""
    tile, *shape = _shape(known.y)
    out = known.y if in_place else torch.empty_like(known.y)
    shortcut = shortcut.contiguous(memory_format=passes.layout(known.y))
    _launch(
        *(kernels.apply_forward, _grid_of_writes(tile, *shape)),
        *(known.y, shortcut, out, known.channels, q, *shape[1:]),
        **tile,
    )
    return out


def reduce_backward(
    grad_out: Tensor, out: Tensor, known: Squeezed
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``eager.reduce_backward``, in two launches; both sums in one tensor, (2, B, C)."""
    tile, samples, hw, c = _shape(known.y)
    slices = _slices(tile, samples, hw, c)
    numbers: dict[str, Any] = {'dtype': torch.float32, 'device': out.device}
    d = torch.empty_like(known.y)
    partial = torch.empty((2, samples * slices * c), **numbers)
    sums, grad_q = torch.empty((2, samples, c), **numbers), torch.empty((samples, c), **numbers)
    grid = (_blocks(c, tile['k']), slices, samples)
    _launch(
        *(kernels.reduce_backward, grid),
        *(grad_out, out, known.y, d, known.channels, partial, hw, c),
        **tile,
    )
    _launch(
        *(kernels.merge_backward, (_blocks(c, MERGED), samples)),
        *(partial, known.channels, sums, grad_q, samples, slices, c),
        s=PARTS,
        k=MERGED,
    )
    return d, sums, grad_q


def gradients(
    d: Tensor,
    known: Squeezed,
    q: Tensor,
    slopes: Tensor,
    mode: str,
    sums: Tensor,
    batch: bool,
    group: None,
    needs_y: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """As ``eager.gradients``, in two launches."""
    tile, *shape = _shape(known.y)
    samples, hw, c = shape
    grads = torch.empty((4, c), dtype=torch.float32, device=d.device)
    slopes = slopes.contiguous()
    _launch(
        *(kernels.norm_grads, (_blocks(c, MERGED),)),
        *(sums, q, slopes, known.values, known.channels, grads, samples, hw, c),
        batch=batch,
        kinds=len(slopes),
        b=PARTS,
        k=MERGED,
    )
    grad_y = None
    if needs_y:
        grad_y = torch.empty_like(known.y)
        position = grads if known.position is None else known.position
        _launch(
            *(kernels.apply_backward, _grid_of_writes(tile, *shape)),
            *(d, known.y, grad_y, known.channels, grads, q, slopes[0], slopes[-1], position),
            *(hw, c),
            batch=batch,
            average='avg' in mode,
            extremes='max' in mode,
            **tile,
        )
    return grad_y, grads[1], grads[0]
