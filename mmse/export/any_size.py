"""What puts the traced size into a graph, computed in a way that leaves the size open.

torch decomposes adaptive pooling into the pixels that each cell covers. mmseg's resizing reads
sizes by ``int()``, to multiply them or merely to warn about them.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn.functional import interpolate


def _weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """What each pixel of a side adds to each cell, (cells, pixels); a cell's weights sum to 1.

    Cell i covers the pixels from floor(i * pixels / cells) to ceil((i + 1) * pixels / cells).
    """
    pixel = torch.arange(pixels, device=like.device)
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    first = cell * pixels // cells
    end = ((cell + 1) * pixels + cells - 1) // cells
    covered = (first <= pixel) & (pixel < end)
    return covered.to(like.dtype) / (end - first)


def average_cells(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """``adaptive_avg_pool2d`` of maps (B, C, H, W) or (C, H, W) as two matrix products."""
    rows, columns = output_size
    if rows == columns == 1:
        return x.mean((-2, -1), keepdim=True)
    by_row = _weights(x.shape[-2], rows, x) @ x
    return by_row @ _weights(x.shape[-1], columns, x).T


def with_pooling_for_any_size(program: ExportedProgram) -> ExportedProgram:
    """An exported program with its adaptive average poolings as matrix products."""
    table = {torch.ops.aten.adaptive_avg_pool2d.default: average_cells}
    decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _upsample(self: Any, x: Tensor) -> Tensor:
    """The forward pass of mmseg's ``Upsample``."""
    factor = None if self.size else self.scale_factor
    return interpolate(
        x, self.size, factor, self.mode, self.align_corners, recompute_scale_factor=not self.size
    )


@contextmanager
def mmseg_resizes_to_any_size() -> Iterator[None]:
    """Let mmseg's modules resize without ``int()`` while they are traced."""
    wrappers = sys.modules.get('mmseg.models.utils.wrappers')
    if wrappers is None:  # no module of mmseg is traced
        yield
        return
    # Heads have imported the function by name, so it is changed and not replaced.
    silent = (*wrappers.resize.__defaults__[:-1], False)  # warning=False
    with (
        patch.object(wrappers.resize, '__defaults__', silent),
        patch.object(wrappers.Upsample, 'forward', _upsample),
    ):
        yield
