"""Figures of gates."""

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mmse.gates.collect import Collected, Energy
from mmse.gates.watch import SATURATED

INK, PALE = '#1b2a3a', '#9aa7b4'
CHANNELS = 48


def draw_distributions(collected: Collected) -> Figure:
    """The gates of every block: quartiles, range, and the saturated shares."""
    blocks = list(collected.gates)
    figure, axes = plt.subplots(figsize=(max(6, 0.55 * len(blocks) + 1.5), 4), layout='constrained')
    for share in (SATURATED, 1 - SATURATED):
        axes.axhline(share, color=PALE, linestyle=':', linewidth=1)
    for x, block in enumerate(blocks):
        gates = collected.gates[block].ravel()
        low, first, middle, third, high = np.quantile(gates, (0, 0.25, 0.5, 0.75, 1))
        axes.plot((x, x), (low, high), color=PALE, linewidth=1)
        axes.plot((x, x), (first, third), color=INK, linewidth=6, solid_capstyle='butt')
        axes.plot(x, middle, 'o', color='white', markersize=3)
        saturated = ((gates < SATURATED) | (gates > 1 - SATURATED)).mean()
        axes.annotate(f'{saturated:.0%}', (x, 1.03), ha='center', fontsize=7, color=INK)
    axes.set_xticks(range(len(blocks)), blocks, rotation=60, ha='right', fontsize=8)
    axes.set_ylim(-0.02, 1.08)
    axes.set_ylabel('gate', fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def draw_classes(collected: Collected) -> Figure:
    """Which channels open for which class: the mean gate of a class less that of all classes."""
    last = {block.partition('.')[0]: block for block in collected.gates}
    figure, grid = plt.subplots(
        len(last),
        1,
        figsize=(9, 0.8 + 0.28 * len(collected.classes) * len(last)),
        squeeze=False,
        layout='constrained',
    )
    for block, axes in zip(last.values(), grid[:, 0], strict=True):
        means = collected.by_class(block)
        table = np.array(list(means.values()))
        table = table - table.mean(0)
        order = np.argsort(-np.ptp(table, axis=0))[:CHANNELS]
        order = order[np.argsort(table[:, order].argmax(0), kind='stable')]
        limit = max(np.abs(table).max(), 1e-6)
        image = axes.imshow(table[:, order], cmap='RdBu_r', vmin=-limit, vmax=limit, aspect='auto')
        axes.set_yticks(range(len(means)), means, fontsize=8)
        axes.set_xticks([])
        axes.set_title(
            f'{block}: at most {np.ptp(table, axis=0).max():.2g}', loc='left', fontsize=9
        )
        bar = figure.colorbar(image, ax=axes, pad=0.01, ticks=(-limit, 0, limit))
        bar.ax.set_yticklabels([f'{tick:+.1g}' if tick else '0' for tick in (-limit, 0, limit)])
        bar.ax.tick_params(labelsize=8)
        bar.set_label('gate - mean', fontsize=8)
    label = f'the {CHANNELS} channels that differ most between the classes, or all'
    grid[-1, 0].set_xlabel(label, fontsize=9)
    return figure


def draw_learned(scalars: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """What alpha, T and the weight of the average became, a point a block."""
    names = sorted({name for of_block in scalars.values() for name in of_block})
    if not names:
        return None
    blocks = list(scalars)
    figure, grid = plt.subplots(
        len(names),
        1,
        figsize=(max(6, 0.5 * len(blocks) + 1.5), 1.9 * len(names)),
        squeeze=False,
        sharex=True,
        layout='constrained',
    )
    for name, axes in zip(names, grid[:, 0], strict=True):
        values = [scalars[block].get(name, np.nan) for block in blocks]
        axes.plot(range(len(blocks)), values, 'o-', color=INK, linewidth=0.8, markersize=4)
        axes.set_ylabel(name.replace('_', ' '), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    grid[-1, 0].set_xticks(range(len(blocks)), blocks, rotation=60, ha='right', fontsize=8)
    return figure


def draw_energies(image: np.ndarray, energies: Sequence[Energy]) -> Figure:
    """The image, and its energy in each stage before and after recalibration."""
    figure, grid = plt.subplots(
        2, len(energies) + 1, figsize=(2.2 * (len(energies) + 1), 4.4), layout='constrained'
    )
    grid[0, 0].imshow(image)
    grid[0, 0].set_title('image', fontsize=9)
    for column, energy in enumerate(energies, 1):
        for row, (name, value) in enumerate((('before', energy.before), ('after', energy.after))):
            # Each on its own scale: the norms around differ by a constant.
            grid[row, column].imshow(value, cmap='magma')
            grid[row, column].set_title(f'{energy.stage} {name}, max {value.max():.2g}', fontsize=8)
    for axes in grid.flat:
        axes.axis('off')
    return figure
