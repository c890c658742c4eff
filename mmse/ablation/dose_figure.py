"""The figure of what the attention of each arm did, beside what came of it."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmse.ablation.arms import ArmSummary
from mmse.ablation.labels import WIDTH, height, wrap
from mmse.ablation.summary import TaskSummary
from mmse.pages.style import INK, PALE, SHADE

OFFSET = 0.18  # of the rows, between the stages of an arm


def draw_dose(task: TaskSummary) -> Figure | None:
    """How far the attention of each arm moved, what the metric owes to it, and the effect."""
    arms = task.attended
    if not arms:
        return None
    figure = Figure(figsize=(WIDTH, 1.3 + len(arms) * max(0.75, height(a.name for a in arms))))
    moved, owed, effect = figure.subplots(1, 3, sharey=True)
    for y, arm in enumerate(reversed(arms)):
        _draw_stages(moved, arm, y)
        _draw_owed(owed, arm, y)
        _draw_effect(effect, arm, y)
    moved.axvspan(0, task.smallest_dose, color=SHADE, zorder=0)
    moved.set_xlim(left=0)
    effect.axvspan(-task.smallest_effect, task.smallest_effect, color=SHADE, zorder=0)
    for axes in (owed, effect):
        axes.axvline(0, color=PALE, linewidth=1)
    unit = task.metric_label
    labels = {
        moved: 'dose by stage\n(hollow: by the image)',
        owed: f'{unit} owed to it\n(hollow: to its looking)',
        effect: f'{unit}\n- that of {task.arms[0].name}',
    }
    for axes, label in labels.items():
        axes.set_xlabel(label, fontsize='small')
        axes.locator_params(axis='x', nbins=4)
    moved.set_yticks(range(len(arms)), [wrap(arm.name) for arm in reversed(arms)])
    moved.set_ylim(-0.6, len(arms) - 0.4)
    return figure


def _draw_stages(axes: Axes, arm: ArmSummary, y: float) -> None:
    for key, face in (('moved', INK), ('over_images', 'white')):
        for i, (stage, doses) in enumerate(sorted(arm.stage_doses(key).items())):
            at = y + (1.5 - i) * OFFSET
            axes.plot((min(doses), max(doses)), (at, at), color=INK, linewidth=1)
            axes.plot(np.mean(doses), at, 'o', color=INK, markerfacecolor=face, markersize=3.5)
            if key == 'moved':
                axes.annotate(
                    stage.removeprefix('layer'),
                    (max(doses), at),
                    (4, 0),
                    textcoords='offset points',
                    va='center',
                    fontsize=6.5,
                )


def _draw_owed(axes: Axes, arm: ArmSummary, y: float) -> None:
    for to, shift, face in (('start', 0.12, INK), ('mean', -0.12, 'white')):
        lost = list(arm.owed(to).values())
        if lost:
            axes.plot((min(lost), max(lost)), (y + shift, y + shift), color=INK, linewidth=1)
            axes.plot(np.mean(lost), y + shift, 'o', color=INK, markerfacecolor=face)


def _draw_effect(axes: Axes, arm: ArmSummary, y: float) -> None:
    difference = arm.against_first
    if difference is not None and math.isfinite(difference.t_interval[0]):
        axes.plot(difference.t_interval, (y, y), color=INK, linewidth=2.5)
        axes.plot(difference.mean, y, 'o', color=INK)
