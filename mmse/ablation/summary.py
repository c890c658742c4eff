"""What the trial files of a study add up to: the numbers that its report shows."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmse.ablation.contrasts import Contrast
from mmse.ablation.records import comparable, read_plan, read_trials
from mmse.ablation.stats import Estimate, estimate, holm, pairs_needed, smallest_p, verdict

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ContrastSummary:
    """One contrast: its estimate, and the verdict where it was registered beforehand."""

    name: str
    description: str
    registered: bool
    estimate: Estimate
    p: float
    verdict: str


@dataclass(frozen=True)
class ArmSummary:
    """One arm: the metric of each seed, and what the arm costs.

    Args:
        name: The arm's name.
        metric: The metric that counts.
        attention: Its resolved attention, in words.
        config: Its full config.
        records: Its trials.
        against_first: The difference to the first arm; None for that arm itself.
        time_ratio: Median over the seeds of its step time over that of the first arm.
    """

    name: str
    metric: str
    attention: str
    config: str
    records: Sequence[Record]
    against_first: Estimate | None
    time_ratio: float | None

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {r['seed']: r['metrics'][self.metric] for r in self.records}

    @property
    def mean(self) -> float:
        """Mean of the metric."""
        return statistics.mean(self.values.values())

    @property
    def deviation(self) -> float:
        """Standard deviation of the metric over the seeds; 0 for one seed."""
        return statistics.stdev(self.values.values()) if len(self.records) > 1 else 0.0

    @property
    def curves(self) -> dict[int, list[list[float]]]:
        """(Iteration, metric) of every validation, by seed."""
        return {r['seed']: r['curves'][self.metric] for r in self.records}

    @property
    def scalars(self) -> list[Mapping[str, Mapping[str, Sequence[float]]]]:
        """What alpha, T and the weight of the average became: scalar, stage, blocks."""
        return [r['scalars'] for r in self.records if r['scalars']]

    def median(self, key: str) -> float:
        """Median of a number of its trials."""
        median: float = statistics.median(r[key] for r in self.records)
        return median


@dataclass(frozen=True)
class TaskSummary:
    """One task: its arms and contrasts."""

    name: str
    base: str
    metric: str
    smallest_effect: float
    arms: Sequence[ArmSummary]
    contrasts: Sequence[ContrastSummary]

    @property
    def metric_label(self) -> str:
        """The metric with its unit: mmdet's metrics are shares of 1, mmseg's percentages."""
        name = self.metric.rpartition('/')[2].replace('_', ' ', 1)
        return f'{name} (%)' if '/' not in self.metric else f'{name} (0 to 1)'

    @property
    def digits(self) -> int:
        """Decimals that tell a hundredth of the smallest effect of interest."""
        return max(0, 2 - math.floor(math.log10(self.smallest_effect)))


@dataclass(frozen=True)
class Summary:
    """A whole study."""

    name: str
    tasks: Sequence[TaskSummary]
    notes: Sequence[str]
    failed: Sequence[Record]
    provenance: str

    @property
    def records(self) -> list[Record]:
        """Every trial that counts."""
        return [r for task in self.tasks for arm in task.arms for r in arm.records]


def summarise(folder: Path) -> Summary:
    """Read plan and trials of a study and work out all that its report says.

    Raises:
        UserError: There is no plan, or a file cannot be read.
    """
    plan, everything = read_plan(folder), read_trials(folder)
    records, notes = comparable(plan, everything)
    summaries = [(task, _arms(plan, task, records)) for task in plan['tasks']]
    registered = [c for c in plan['contrasts'] if c['registered']]
    estimates = {
        (task['name'], c['name']): estimate(_contrast(c), {a.name: a.values for a in arms})
        for task, arms in summaries
        for c in plan['contrasts']
    }
    confirmatory = [(t['name'], c['name']) for t, _ in summaries for c in registered]
    corrected = dict(
        zip(confirmatory, holm([estimates[key].p for key in confirmatory]), strict=True)
    )
    pairs = min((len(e.differences) for e in estimates.values()), default=0)
    tasks = []
    for task, arms in summaries:
        contrasts = []
        for c in plan['contrasts']:
            key = task['name'], c['name']
            found = estimates[key]
            p = corrected.get(key, found.p)
            contrasts.append(
                ContrastSummary(
                    c['name'],
                    c['description'],
                    c['registered'],
                    found,
                    p,
                    verdict(found, p, task['smallest_effect'])
                    if c['registered']
                    else 'exploratory: added after the first results',
                )
            )
        tasks.append(
            TaskSummary(
                task['name'], task['base'], task['metric'], task['smallest_effect'], arms, contrasts
            )
        )
    return Summary(
        plan['name'],
        tasks,
        [_power(pairs, len(confirmatory)), *notes],
        [r for r in everything if r['status'] == 'failed'],
        _provenance(records),
    )


def _power(pairs: int, contrasts: int) -> str:
    needed = pairs_needed(contrasts) if contrasts else 0
    text = (
        f'{pairs} seeds have all arms of every contrast: the smallest two-sided p that they can '
        f'give is {smallest_p(pairs):.2g}'
    )
    if pairs < needed:
        return (
            f'{text}. With {contrasts} contrasts, Holm-corrected, no effect of any size can reach '
            f'0.05: that takes {needed} seeds'
        )
    corrected = contrasts * smallest_p(pairs)
    return f"{text}, {corrected:.2g} after Holm's correction for {contrasts} contrasts"


def _provenance(records: Sequence[Record]) -> str:
    if not records:
        return 'no finished trials'
    environment = ', '.join(f'{k} {v}' for k, v in records[0]['environment'].items())
    return f'code {records[0]["code"]}; {environment}'


def _contrast(entry: Mapping[str, Any]) -> Contrast:
    return Contrast(entry['name'], entry['weights'], entry['description'])


def _arms(
    plan: Mapping[str, Any], task: Mapping[str, Any], records: Sequence[Record]
) -> list[ArmSummary]:
    names = [arm['name'] for arm in plan['arms']]
    by_arm = {
        name: sorted(
            (r for r in records if r['task'] == task['name'] and r['arm'] == name),
            key=lambda r: r['seed'],
        )
        for name in names
    }
    values = {
        name: {r['seed']: r['metrics'][task['metric']] for r in rs} for name, rs in by_arm.items()
    }
    times = {name: {r['seed']: r['step_time_s'] for r in rs} for name, rs in by_arm.items()}
    variants = {v['arm']: v for v in plan['variants'] if v['task'] == task['name']}
    first = names[0]
    arms = []
    for name in names:
        against = None
        ratios = [times[name][s] / times[first][s] for s in times[name] if s in times[first]]
        if name != first:
            difference = Contrast(f'{name} - {first}', {name: 1.0, first: -1.0}, '')
            against = estimate(difference, values)
        arms.append(
            ArmSummary(
                name,
                task['metric'],
                variants[name]['attention'],
                variants[name]['config'],
                by_arm[name],
                against,
                statistics.median(ratios) if ratios else None,
            )
        )
    return arms
