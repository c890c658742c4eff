"""The figures of a report, readable without colour."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmse.ablation.arms import ArmSummary
from mmse.ablation.dose_figure import draw_dose
from mmse.ablation.labels import WIDTH, height, wrap
from mmse.ablation.summary import TaskSummary
from mmse.pages.style import ACCENT, INK, PALE, SHADE, styled, write_figure

COLUMNS = 3


def draw_all(task: TaskSummary, folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure of a task for which its trials hold something.

    Args:
        task: The summary of the task's trials.
        folder: Where the PNGs go.

    Returns:
        Each file with its caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (draw, caption) in FIGURES.items():
        with styled():
            figure = draw(task)
            if figure is None:
                continue
            file = folder / ('_'.join(filter(None, (task.name, name))) + '.png')
            write_figure(figure, file)
        drawn.append((file, caption))
    return drawn


def draw_contrasts(task: TaskSummary) -> Figure | None:
    """The forest plot."""
    rows = [c for c in task.contrasts if math.isfinite(c.estimate.t_interval[0])]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + len(rows) * max(0.55, height(c.name for c in rows))))
    axes = figure.subplots()
    axes.axvspan(-task.smallest_effect, task.smallest_effect, color=SHADE, zorder=0)
    axes.axvline(0, color=PALE, linewidth=1)
    for y, row in enumerate(reversed(rows)):
        axes.plot(row.estimate.t_interval, (y, y), color=INK, linewidth=3, solid_capstyle='butt')
        bootstrap = row.estimate.bootstrap_interval
        axes.plot(bootstrap, (y - 0.18, y - 0.18), color=INK, linewidth=1)
        face = INK if row.registered else 'white'
        axes.plot(row.estimate.mean, y, 'o', color=INK, markerfacecolor=face, markersize=7)
        axes.annotate(
            wrap(row.verdict),
            (1.02, y),
            xycoords=('axes fraction', 'data'),
            va='center',
            annotation_clip=False,
        )
    axes.set_yticks(range(len(rows)), [wrap(c.name) for c in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.locator_params(axis='x', nbins=6)  # more labels than that touch each other
    axes.set_xlabel(f'difference of {task.metric_label}')
    return figure


def draw_seeds(task: TaskSummary) -> Figure | None:
    """The metric of every trial minus the mean over the arms of its seed."""
    arms = [a for a in task.arms if a.values]
    seeds = set.intersection(*(set(a.values) for a in arms)) if arms else set()
    if not seeds:
        return None
    common = {seed: np.mean([a.values[seed] for a in arms]) for seed in seeds}
    figure = Figure(figsize=(WIDTH, 0.9 + len(arms) * max(0.42, height(a.name for a in arms))))
    axes = figure.subplots()
    rows = range(len(arms) - 1, -1, -1)
    axes.axvline(0, color=PALE, linewidth=1)
    for seed in sorted(seeds):
        points = [arm.values[seed] - common[seed] for arm in arms]
        axes.plot(points, rows, color=PALE, linewidth=0.6, alpha=0.6)
        axes.plot(points, rows, 'o', color=INK, markersize=4.5, alpha=0.75, markeredgewidth=0)
    for arm, y in zip(arms, rows, strict=True):
        mean = np.mean([arm.values[seed] - common[seed] for seed in seeds])
        axes.plot([mean] * 2, (y - 0.3, y + 0.3), color=ACCENT, linewidth=3)
    axes.set_yticks(rows, [wrap(arm.name) for arm in arms])
    axes.set_xlabel(f'{task.metric_label} minus the mean of its seed')
    return figure


def draw_curves(task: TaskSummary) -> Figure | None:
    """The validation curves, one panel per arm."""
    arms = [a for a in task.arms if a.curves]
    if not arms:
        return None
    rows = math.ceil(len(arms) / COLUMNS)
    figure = Figure(figsize=(WIDTH, 0.5 + rows * (1.6 + height(a.name for a in arms))))
    columns = min(COLUMNS, len(arms))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    first_steps, first = _curves(arms[0])
    for arm, axes in zip(arms, grid.flat, strict=False):
        steps, curves = _curves(arm)
        axes.plot(first_steps, first.mean(0), color=PALE, linewidth=1.2, linestyle='--')
        axes.fill_between(steps, curves.min(0), curves.max(0), color=INK, alpha=0.18, linewidth=0)
        axes.plot(steps, curves.mean(0), color=INK, marker='o', markersize=3)
        axes.set_title(wrap(arm.name), fontsize=8.5)
    for above, axes in zip(grid.flat[len(arms) - columns :], grid.flat[len(arms) :], strict=False):
        axes.set_visible(False)
        above.tick_params(labelbottom=True)
    figure.supxlabel('iteration', fontsize='medium')
    figure.supylabel(task.metric_label, fontsize='medium')
    return figure


def _curves(arm: ArmSummary) -> tuple[np.ndarray, np.ndarray]:
    """The iterations at which every seed has a value, (V,), and the values, (seeds, V)."""
    curves = [{point[0]: point[1] for point in curve} for curve in arm.curves.values()]
    steps = sorted(set.intersection(*map(set, curves)))
    return np.array(steps), np.array([[curve[step] for step in steps] for curve in curves])


def draw_cost(task: TaskSummary) -> Figure | None:
    """What each arm gains over the first arm, and what its training steps cost."""
    rows = [
        (arm.name, arm.time_ratio, arm.against_first)
        for arm in task.arms[1:]
        if arm.time_ratio and arm.against_first
        if math.isfinite(arm.against_first.t_interval[0])
    ]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 4))
    axes = figure.subplots()
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
    labels = '\n'.join(
        f'{n}  ' + wrap(name).replace('\n', '\n    ') for n, (name, _, _) in enumerate(rows, 1)
    )
    axes.annotate(labels, (1.02, 1), xycoords='axes fraction', va='top', annotation_clip=False)
    axes.set_xlabel(f'time of a training step / that of {task.arms[0].name}')
    axes.set_ylabel(f'{task.metric_label} - that of {task.arms[0].name}')
    return figure


STARTS = {'weight_of_avg': 0.5}


def draw_scalars(task: TaskSummary) -> Figure | None:
    """The learned scalars by stage: one row of panels per arm, one column per scalar."""
    names = sorted({name for arm in task.arms for scalars in arm.scalars for name in scalars})
    arms = [arm for arm in task.arms if any(arm.scalars)]
    if not names or not arms:
        return None
    figure = Figure(figsize=(WIDTH, 0.5 + len(arms) * (1.4 + height(a.name for a in arms))))
    grid = figure.subplots(len(arms), len(names), squeeze=False, sharey='col')
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
    axes.set_title(wrap(arm.name), fontsize=8.5)


FIGURES = {
    'contrasts': (
        draw_contrasts,
        "Contrasts: mean of the paired differences with its intervals, by Student's t (thick line) "
        'and by the bootstrap (thin line), which cover as the look allows. Filled dots: registered '
        'beforehand; hollow dots: exploratory. Shaded: effects below the smallest effect of '
        'interest.',
    ),
    'dose': (
        draw_dose,
        'What the attention did, and what came of it. Left: how far the gains of each stage moved '
        'from their start (filled) and vary over the images (hollow), mean and range over the '
        'seeds; shaded: too little for a verdict. Middle: what the metric loses with the gains of '
        'the trained network put back to their start (filled) or held at their mean over the '
        'images (hollow), mean and range. Right: the difference from the first arm with its 95% '
        'interval; shaded: below the smallest effect of interest.',
    ),
    'seeds': (
        draw_seeds,
        'The metric of every trial minus the mean over the arms of its seed. Dots: trials; lines '
        'join the trials of one seed; bars: means over the seeds.',
    ),
    'curves': (
        draw_curves,
        'Validation during training: mean (line) and range (band) over the seeds. Dashed: mean of '
        'the first arm.',
    ),
    'cost': (
        draw_cost,
        'Benefit and cost against the first arm: difference of the metric with its 95% interval, '
        'and ratio of the times of a training step.',
    ),
    'scalars': (
        draw_scalars,
        'The learned scalars at the end of training, by stage; each dot is one block in one trial. '
        'Dashed: where the weight of the average squeeze starts.',
    ),
}
