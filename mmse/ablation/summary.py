"""What the trial files of a study add up to: the numbers that its report shows."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmse.ablation.contrasts import Contrast
from mmse.ablation.plan import Plan, PlannedTask, read_plan
from mmse.ablation.records import FailedTrial, FinishedTrial, comparable, read_trials
from mmse.ablation.stats import Estimate, estimate, holm, reach, verdict


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
        against_first: The difference from the first arm; None for that arm itself.
        time_ratio: Median over the seeds of its step time over that of the first arm.
    """

    name: str
    metric: str
    attention: str
    config: str
    records: Sequence[FinishedTrial]
    against_first: Estimate | None
    time_ratio: float | None

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {r.seed: r.metrics[self.metric] for r in self.records}

    @property
    def mean(self) -> float:
        """Mean of the metric."""
        return statistics.mean(self.values.values())

    @property
    def deviation(self) -> float:
        """Standard deviation of the metric over the seeds; 0 for one seed."""
        return statistics.stdev(self.values.values()) if len(self.records) > 1 else 0.0

    @property
    def curves(self) -> dict[int, Sequence[Sequence[float]]]:
        """(Iteration, metric) of every validation, by seed."""
        return {r.seed: r.curves[self.metric] for r in self.records}

    @property
    def scalars(self) -> list[Mapping[str, Mapping[str, Sequence[float]]]]:
        """What alpha, T and the weight of the average became: scalar, stage, blocks."""
        return [r.scalars for r in self.records if r.scalars]

    def median(self, key: str) -> float:
        """Median over its trials of one of their numbers, a field of ``FinishedTrial``."""
        median: float = statistics.median(getattr(r, key) for r in self.records)
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
    failed: Sequence[FailedTrial]
    provenance: str

    @property
    def records(self) -> list[FinishedTrial]:
        """Every trial that counts."""
        return [r for task in self.tasks for arm in task.arms for r in arm.records]


def summarise(folder: Path) -> Summary:
    """Read plan and trials of a study and work out all that its report says.

    Raises:
        UserError: There is no plan, or a file cannot be read.
    """
    plan, trials = read_plan(folder), read_trials(folder)
    finished, left_out = comparable(plan, trials)
    arms = {task.name: _arms(plan, task, finished) for task in plan.tasks}
    estimates = {
        (task.name, contrast.name): estimate(contrast, {a.name: a.values for a in arms[task.name]})
        for task in plan.tasks
        for contrast in plan.contrasts
    }
    registered = [
        (task.name, contrast.name)
        for task in plan.tasks
        for contrast in plan.contrasts
        if contrast.registered
    ]
    corrected = dict(zip(registered, holm([estimates[k].p for k in registered]), strict=True))
    pairs = min((len(e.differences) for e in estimates.values()), default=0)
    return Summary(
        plan.name,
        [_task(plan, task, arms[task.name], estimates, corrected) for task in plan.tasks],
        [reach(pairs, len(registered)), *left_out],
        [trial for trial in trials if isinstance(trial, FailedTrial)],
        _provenance(finished),
    )


def _task(
    plan: Plan,
    task: PlannedTask,
    arms: Sequence[ArmSummary],
    estimates: Mapping[tuple[str, str], Estimate],
    corrected: Mapping[tuple[str, str], float],
) -> TaskSummary:
    contrasts = []
    for contrast in plan.contrasts:
        key = task.name, contrast.name
        p = corrected.get(key, estimates[key].p)
        if contrast.registered:
            said = verdict(estimates[key], p, task.smallest_effect)
        else:
            said = 'exploratory: added after the first results'
        contrasts.append(
            ContrastSummary(
                contrast.name,
                contrast.description,
                contrast.registered,
                estimates[key],
                p,
                said,
            )
        )
    return TaskSummary(task.name, task.base, task.metric, task.smallest_effect, arms, contrasts)


def _provenance(trials: Sequence[FinishedTrial]) -> str:
    """What the trials have in common besides their question, in words."""
    if not trials:
        return 'no finished trials'
    data = sorted({trial.data[:12] for trial in trials})
    commits = sorted({trial.commit for trial in trials if trial.commit})
    environment = ', '.join(f'{k} {v}' for k, v in trials[0].environment.items())
    made_by = f', commit {" and ".join(commits)}' if commits else ''
    return (
        f'Results version {trials[0].results_version}, data {" and ".join(data)}{made_by}; '
        + environment
    )


def _arms(plan: Plan, task: PlannedTask, trials: Sequence[FinishedTrial]) -> list[ArmSummary]:
    variants = [variant for variant in plan.variants if variant.task == task.name]
    by_arm = {
        v.arm: sorted(
            (t for t in trials if (t.task, t.arm) == (v.task, v.arm)), key=lambda t: t.seed
        )
        for v in variants
    }
    values = {name: {t.seed: t.metrics[task.metric] for t in ts} for name, ts in by_arm.items()}
    times = {name: {t.seed: t.step_time_s for t in ts} for name, ts in by_arm.items()}
    first = variants[0].arm
    arms = []
    for variant in variants:
        name = variant.arm
        against = None
        ratios = [times[name][s] / times[first][s] for s in times[name] if s in times[first]]
        if name != first:
            difference = Contrast(f'{name} - {first}', {name: 1.0, first: -1.0}, '')
            against = estimate(difference, values)
        arms.append(
            ArmSummary(
                name,
                task.metric,
                variant.attention,
                variant.config,
                by_arm[name],
                against,
                statistics.median(ratios) if ratios else None,
            )
        )
    return arms
