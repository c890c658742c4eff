"""Figures of gates."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmse.gates.collect import Collected, Energy
from mmse.gates.watch import SATURATED
from mmse.pages.style import INK, PALE

CHANNELS = 48
SMALLEST_SPAN = 0.1  # of the axis of a learned scalar


def draw_distributions(collected: Collected) -> Figure:
    """The gates of every block: quartiles, range, and the saturated share."""
    blocks = list(collected.gates)
    figure = Figure(figsize=(_width(blocks), 4))
    axes = figure.subplots()
    for share in (SATURATED, 1 - SATURATED):
        axes.axhline(share, color=PALE, linestyle=':', linewidth=1)
    for x, block in enumerate(blocks):
        gates = collected.gates[block].ravel()
        low, first, middle, third, high = np.quantile(gates, (0, 0.25, 0.5, 0.75, 1))
        axes.plot((x, x), (low, high), color=PALE, linewidth=1)
        axes.plot((x, x), (first, third), color=INK, linewidth=6, solid_capstyle='butt')
        axes.plot(x, middle, 'o', color='white', markeredgecolor=INK, markersize=4)
        saturated = ((gates < SATURATED) | (gates > 1 - SATURATED)).mean()
        axes.annotate(f'{saturated:.0%}', (x, 1.03), ha='center', fontsize=8)
    axes.set_ylim(-0.02, 1.08)
    axes.set_ylabel('gate')
    _label_blocks(axes, blocks)
    return figure


def draw_classes(collected: Collected) -> Figure:
    """Which channels open for which class: mean gate of each class minus the mean over classes."""
    last = {block.partition('.')[0]: block for block in collected.gates}
    rows = len(collected.classes) * len(last)
    figure = Figure(figsize=(9, 0.8 + 0.35 * len(last) + 0.24 * rows))
    grid = figure.subplots(len(last), 1, squeeze=False)
    for block, axes in zip(last.values(), grid[:, 0], strict=True):
        means = collected.by_class(block)
        table = np.array(list(means.values()))
        table = table - table.mean(0)
        order = np.argsort(-np.ptp(table, axis=0))[:CHANNELS]
        order = order[np.argsort(table[:, order].argmax(0), kind='stable')]
        limit = max(np.abs(table).max(), 1e-6)
        image = axes.imshow(table[:, order], cmap='RdBu_r', vmin=-limit, vmax=limit, aspect='auto')
        axes.set_yticks(range(len(means)), list(means))
        axes.set_xticks([])
        axes.set_title(f'{block}: gates differ by {np.ptp(table, axis=0).max():.2g} at most')
        bar = figure.colorbar(image, ax=axes, pad=0.01, ticks=(-limit, 0, limit))
        bar.ax.set_yticklabels([f'{tick:+.1g}' if tick else '0' for tick in (-limit, 0, limit)])
    grid[-1, 0].set_xlabel(f'at most {CHANNELS} channels: those that differ most between classes')
    return figure


def draw_learned(scalars: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """The learned alpha, T and weight of the average squeeze, one point per block."""
    names = sorted({name for of_block in scalars.values() for name in of_block})
    if not names:
        return None
    blocks = list(scalars)
    figure = Figure(figsize=(_width(blocks), 0.6 + 1.7 * len(names)))
    grid = figure.subplots(len(names), 1, squeeze=False, sharex=True)
    for name, axes in zip(names, grid[:, 0], strict=True):
        values = np.array([scalars[block].get(name, np.nan) for block in blocks])
        axes.plot(range(len(blocks)), values, 'o-', color=INK, linewidth=0.8, markersize=4)
        # Differences that mean nothing must not fill the panel.
        low, high = np.nanmin(values), np.nanmax(values)
        half = max(0.55 * (high - low), SMALLEST_SPAN / 2)
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        axes.set_ylabel(name.replace('_', ' '))
    _label_blocks(grid[-1, 0], blocks)
    return figure


def draw_energies(image: np.ndarray, energies: Sequence[Energy]) -> Figure:
    """An image, and the energy of its features in each stage before and after recalibration."""
    columns = len(energies) + 1
    height, width = image.shape[:2]
    figure = Figure(figsize=(2.2 * columns, 0.1 + 2 * (0.3 + 2.1 * height / width)))
    grid = figure.subplots(2, columns)
    grid[0, 0].imshow(image)
    grid[0, 0].set_title('image')
    for column, energy in enumerate(energies, 1):
        for row, (name, value) in enumerate((('before', energy.before), ('after', energy.after))):
            # Each map has its own scale: the identity start rescales the norm before the gate.
            grid[row, column].imshow(value, cmap='magma')
            grid[row, column].set_title(f'{energy.stage} {name}, max {value.max():.2g}', fontsize=8)
    for axes in grid.flat:
        axes.axis('off')
    return figure


def _width(blocks: Sequence[str]) -> float:
    """Inches that the names of the blocks take on an axis."""
    return max(6, 0.5 * len(blocks) + 1.5)


def _label_blocks(axes: Axes, blocks: Sequence[str]) -> None:
    axes.set_xticks(range(len(blocks)), blocks, rotation=60, ha='right', fontsize=8)
