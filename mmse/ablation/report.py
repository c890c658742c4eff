"""The report of a study: Markdown, one self-contained HTML page, and figures."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmse.ablation.figures import draw_all
from mmse.ablation.summary import Summary, summarise
from mmse.ablation.verdicts import ContrastSummary
from mmse.pages.html import write_page
from mmse.pages.style import base64_of
from mmse.utils.errors import UserError


def write_report(folder: Path) -> Summary:
    """Write ``report.md``, ``report.html`` and ``figures/`` from the trial files of a folder.

    Args:
        folder: The results of a study; see ``mmse.ablation.scheduler.Folders``.

    Raises:
        UserError: There is no plan, or no trial that has finished.
    """
    summary = summarise(folder)
    if not summary.records:
        raise UserError(f'{folder} has no finished trial to report')
    drawn = {task.name: draw_all(task, folder / 'figures') for task in summary.tasks}
    values = {
        'summary': summary,
        'figures': {
            task: [(file.relative_to(folder), caption) for file, caption in files]
            for task, files in drawn.items()
        },
        'images': {
            task: [(base64_of(file), caption) for file, caption in files]
            for task, files in drawn.items()
        },
    }
    for name in ('report.md', 'report.html'):
        write_page(folder / name, 'mmse.ablation', values, FILTERS)
    return summary


def status_table(folder: Path) -> str:
    """Seeds, mean, deviation and dose of every arm so far, as a table for a terminal."""
    summary = summarise(folder)
    lines = []
    for task in summary.tasks:
        width = max(len(arm.name) for arm in task.arms)
        lines.append(f'{task.name} {task.metric}'.strip())
        for arm in task.arms:
            shown = f'{arm.mean:.4f}' if arm.records else ''
            if len(arm.records) > 1:
                shown += f' +- {arm.deviation:.4f}'
            if arm.dose is not None:
                owed = ', '.join(
                    f'{_owed(arm.owed(to), task.digits)} {words}'
                    for to, words in (('start', 'owed to it'), ('mean', 'to its looking'))
                )
                looks = arm.median_dose('over_images')
                shown += f'  dose {arm.dose:.3f} ({looks:.3f} by the image), {owed}'
            if arm.learned:
                shown += f'; {_learned(arm.learned)}'
            lines.append(f'  {arm.name:<{width}}  {len(arm.records):3d} seeds  {shown}'.rstrip())
        lines += [f'  {_effect(c)}' for c in task.contrasts]
    lines += [_effect(c) for c in summary.across]
    lines += [f'failed: {trial.id}: {trial.reason}' for trial in summary.failed]
    return '\n'.join([*lines, *summary.notes])


def _effect(contrast: ContrastSummary) -> str:
    found, digits = contrast.estimate, contrast.digits
    effect = f'{_signed(found.mean, digits)} ({_interval(found.t_interval, digits)})'
    return f'{contrast.name}: {effect}: {contrast.verdict}'


def _number(value: float, digits: int) -> str:
    return f'{value:.{digits}f}' if math.isfinite(value) else '-'


def _signed(value: float, digits: int) -> str:
    return f'{value:+.{digits}f}' if math.isfinite(value) else '-'


def _interval(bounds: tuple[float, float], digits: int) -> str:
    # Seeds that all say the same, such as that nothing diverged, do not say how sure that is.
    if not math.isfinite(bounds[0]) or bounds[0] == bounds[1]:
        return '-'
    return f'{_signed(bounds[0], digits)} to {_signed(bounds[1], digits)}'


def _owed(by_seed: Mapping[int, float], digits: int) -> str:
    """Mean, and standard deviation where there are several seeds."""
    values = list(by_seed.values())
    if not values:
        return '-'
    spread = f' ({statistics.stdev(values):.{digits}f})' if len(values) > 1 else ''
    return f'{statistics.mean(values):+.{digits}f}{spread}'


def _learned(scalars: Mapping[str, Sequence[float]]) -> str:
    """The median of each scalar, and its range."""
    return ', '.join(
        f'{name.replace("_", " ")} {statistics.median(values):.2f} '
        f'({min(values):.2f} to {max(values):.2f})'
        for name, values in sorted(scalars.items())
    )


FILTERS: dict[str, Callable[..., Any]] = {
    'owed': _owed,
    'learned': _learned,
    'mean': lambda by_seed: statistics.mean(by_seed.values()) if by_seed else '',
    'number': _number,
    'signed': _signed,
    'interval': _interval,
    'p': lambda value: f'{value:.3f}' if value >= 0.001 else f'{value:.1g}',
    'ratio': lambda value: '-' if value is None else f'{value:.2f}',
    'mib': lambda value: f'{value / 2**20:.0f}',
}
