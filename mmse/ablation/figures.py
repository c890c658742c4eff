"""The figures of a report, readable without colour."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmse.ablation.summary import ArmSummary, TaskSummary

INK, PALE, ACCENT = '#1b2a3a', '#9aa7b4', '#b4531f'
# The keys have a type of their own from matplotlib 3.11 on only.
STYLE: dict[Any, Any] = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': PALE,
    'axes.labelcolor': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'figure.constrained_layout.use': True,
}
COLUMNS = 3


def draw_all(task: TaskSummary, folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure of a task that its trials have something for.

    Args:
        task: The summary of the task's trials.
        folder: Where the PNGs go.

    Returns:
        Each file with what one sees in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (draw, caption) in FIGURES.items():
        with plt.rc_context(STYLE):
            figure = draw(task)
            if figure is None:
                continue
            file = folder / ('_'.join(filter(None, (task.name, name))) + '.png')
            part = file.with_suffix('.part.png')
            figure.savefig(part, dpi=140, facecolor='white')
            part.replace(file)
            plt.close(figure)
        drawn.append((file, caption))
    return drawn


def draw_contrasts(task: TaskSummary) -> Figure | None:
    """The forest plot."""
    rows = [c for c in task.contrasts if math.isfinite(c.estimate.t_interval[0])]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.55 * len(rows)))
    axes.axvspan(-task.smallest_effect, task.smallest_effect, color='#eef1f4', zorder=0)
    axes.axvline(0, color=PALE, linewidth=1)
    for y, row in enumerate(reversed(rows)):
        axes.plot(row.estimate.t_interval, (y, y), color=INK, linewidth=3, solid_capstyle='butt')
        bootstrap = row.estimate.bootstrap_interval
        axes.plot(bootstrap, (y - 0.18, y - 0.18), color=INK, linewidth=1)
        face = INK if row.registered else 'white'
        axes.plot(row.estimate.mean, y, 'o', color=INK, markerfacecolor=face, markersize=7)
        axes.annotate(
            row.verdict,
            (1.02, y),
            xycoords=('axes fraction', 'data'),
            va='center',
            color=INK,
            annotation_clip=False,
        )
    axes.set_yticks(range(len(rows)), [_wrap(c.name) for c in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.locator_params(axis='x', nbins=6)  # more labels than that touch each other
    axes.set_xlabel(f'difference of {task.metric_label}')
    return figure


def draw_seeds(task: TaskSummary) -> Figure | None:
    """Every trial as a dot, paired by seed, without what the arms of a seed have in common."""
    arms = [a for a in task.arms if a.values]
    seeds = set.intersection(*(set(a.values) for a in arms)) if arms else set()
    if not seeds:
        return None
    common = {seed: np.mean([a.values[seed] for a in arms]) for seed in seeds}
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.42 * len(arms)))
    rows = range(len(arms) - 1, -1, -1)
    axes.axvline(0, color=PALE, linewidth=1)
    for seed in sorted(seeds):
        points = [arm.values[seed] - common[seed] for arm in arms]
        axes.plot(points, rows, color=PALE, linewidth=0.7, marker='o', markersize=4)
    for arm, y in zip(arms, rows, strict=True):
        mean = np.mean([arm.values[seed] - common[seed] for seed in seeds])
        axes.plot([mean] * 2, (y - 0.25, y + 0.25), color=ACCENT, linewidth=2.5)
    axes.set_yticks(rows, [_wrap(arm.name) for arm in arms])
    axes.set_xlabel(f'{task.metric_label}, less the mean of the seed')
    return figure


def draw_curves(task: TaskSummary) -> Figure | None:
    """Small multiples of the validation curve, one an arm."""
    arms = [a for a in task.arms if a.curves]
    if not arms:
        return None
    rows = math.ceil(len(arms) / COLUMNS)
    figure, grid = plt.subplots(
        rows,
        min(COLUMNS, len(arms)),
        figsize=(7.5, 0.5 + 1.9 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    first_steps, first = _curves(arms[0])
    for arm, axes in zip(arms, grid.flat, strict=False):
        steps, curves = _curves(arm)
        axes.plot(first_steps, first.mean(0), color=PALE, linewidth=1.2, linestyle='--')
        axes.fill_between(steps, curves.min(0), curves.max(0), color=INK, alpha=0.18, linewidth=0)
        axes.plot(steps, curves.mean(0), color=INK, marker='o', markersize=3)
        axes.set_title(_wrap(arm.name), fontsize=8.5, loc='left', color=INK)
    for axes in list(grid.flat)[len(arms) :]:
        axes.set_visible(False)
    figure.supxlabel('iteration', fontsize=9, color=INK)
    figure.supylabel(task.metric_label, fontsize=9, color=INK)
    return figure


def _curves(arm: ArmSummary) -> tuple[np.ndarray, np.ndarray]:
    curves = np.array(list(arm.curves.values()))  # (seeds, validations, 2)
    return curves[0, :, 0], curves[:, :, 1]


def draw_cost(task: TaskSummary) -> Figure | None:
    """What each arm gains over the first, and what its steps cost."""
    rows = [
        (arm.name, arm.time_ratio, arm.against_first)
        for arm in task.arms[1:]
        if arm.time_ratio and arm.against_first
        if math.isfinite(arm.against_first.t_interval[0])
    ]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(7.5, 4))
    axes.axhline(0, color=PALE, linewidth=1)
    axes.axvline(1, color=PALE, linewidth=1)
    for number, (_, cost, estimate) in enumerate(rows, 1):
        axes.plot([cost] * 2, estimate.t_interval, color=INK, linewidth=1.2)
        axes.plot(cost, estimate.mean, 'o', color=INK, markersize=12)
        axes.annotate(
            str(number),
            (cost, estimate.mean),
            color='white',
            ha='center',
            va='center',
            fontsize=8,
        )
    labels = '\n'.join(f'{n}  {name}' for n, (name, _, _) in enumerate(rows, 1))
    axes.annotate(
        labels, (1.02, 1), xycoords='axes fraction', va='top', color=INK, annotation_clip=False
    )
    axes.set_xlabel(f'time of a training step / that of {task.arms[0].name}')
    axes.set_ylabel(f'{task.metric_label} - that of {task.arms[0].name}')
    return figure


STARTS = {'weight_of_avg': 0.5}


def draw_scalars(task: TaskSummary) -> Figure | None:
    """The learned scalars by stage, one row of panels an arm, one column a scalar."""
    names = sorted({name for arm in task.arms for scalars in arm.scalars for name in scalars})
    arms = [arm for arm in task.arms if any(arm.scalars)]
    if not names or not arms:
        return None
    figure, grid = plt.subplots(
        len(arms), len(names), figsize=(7.5, 0.5 + 1.7 * len(arms)), squeeze=False, sharey='col'
    )
    for arm, row in zip(arms, grid, strict=True):
        for name, axes in zip(names, row, strict=True):
            _draw_stages(axes, arm, name)
    return figure


def _draw_stages(axes: Axes, arm: ArmSummary, name: str) -> None:
    found = [scalars[name] for scalars in arm.scalars if name in scalars]
    if not found:
        axes.set_visible(False)
        return
    stages = list(found[0])
    if name in STARTS:
        axes.axhline(STARTS[name], color=PALE, linestyle='--', linewidth=1)
    for x, stage in enumerate(stages):
        values = np.concatenate([scalars[stage] for scalars in found])
        spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(x + spread, values, '.', color=INK, markersize=4, alpha=0.6)
    axes.set_xticks(range(len(stages)), stages)
    axes.set_ylabel(name.replace('_', ' '))
    axes.set_title(_wrap(arm.name), fontsize=8.5, loc='left', color=INK)


FIGURES = {
    'contrasts': (
        draw_contrasts,
        "Contrasts: mean of the paired differences with its 95% intervals by Student's t (thick) "
        'and by the bootstrap (thin). Filled: registered beforehand; hollow: exploratory. Shaded: '
        'smaller than the smallest effect of interest.',
    ),
    'seeds': (
        draw_seeds,
        'Every trial, less the mean of its seed: a dot is a trial, a line joins those of a seed, a '
        'bar is the mean.',
    ),
    'curves': (
        draw_curves,
        'Validation while training: mean and range over the seeds; dashed: mean of the first arm.',
    ),
    'cost': (
        draw_cost,
        'Benefit and cost against the first arm: difference of the metric with its 95% interval '
        'over the ratio of the times of a training step.',
    ),
    'scalars': (
        draw_scalars,
        'What the learned scalars were at the end of training, by stage; a dot is a block of a '
        'seed. Dashed: the start of the weight of the average squeeze.',
    ),
}


def _wrap(name: str) -> str:
    return name.replace(', ', ',\n') if len(name) > 24 else name
