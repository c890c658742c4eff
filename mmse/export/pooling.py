"""Adaptive average pooling as two matrix products, which ONNX can hold for any size of the map.

torch's own decomposition lists the pixels of each cell, and thereby the size that was traced.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram


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
    """``adaptive_avg_pool2d`` of maps (B, C, H, W) or (C, H, W)."""
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
