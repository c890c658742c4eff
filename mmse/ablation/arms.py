"""One arm of a study in numbers: its metric by seed, its dose, its cost."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmse.ablation.plan import Plan, PlannedTask
from mmse.ablation.records import FinishedTrial
from mmse.ablation.stats import Estimate
from mmse.ablation.verdicts import difference
from mmse.gates.dose import of_network
from mmse.gates.watch import stage_of


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
        """Standard deviation of the metric over the seeds; nan for one seed."""
        return statistics.stdev(self.values.values()) if len(self.records) > 1 else math.nan

    @property
    def curves(self) -> dict[int, Sequence[Sequence[float]]]:
        """(Iteration, metric) of every validation, by seed."""
        return {r.seed: r.curves[self.metric] for r in self.records}

    @property
    def dose(self) -> float | None:
        """Median over the seeds of how far its attention moved; None without attention."""
        return self.median_dose('moved')

    def median_dose(self, key: str) -> float | None:
        """Median over the seeds of ``FinishedTrial.dose_of``; None without attention."""
        doses = [d for r in self.records if (d := r.dose_of(key)) is not None]
        return statistics.median(doses) if doses else None

    def stage_doses(self, key: str) -> dict[str, list[float]]:
        """The dose of each stage, one value per seed; see ``FinishedTrial.dose_of``."""
        stages: dict[str, list[float]] = {}
        for record in self.records:
            by_stage: dict[str, dict[str, Mapping[str, float]]] = {}
            for block, row in (record.dose or {}).items():
                by_stage.setdefault(stage_of(block), {})[block] = row
            for stage, rows in by_stage.items():
                stages.setdefault(stage, []).append(of_network(rows, key))
        return stages

    def dose_part(self, key: str) -> float | None:
        """Mean over blocks and seeds of one number of ``mmse.gates.dose.dose``."""
        values = [row[key] for r in self.records for row in (r.dose or {}).values()]
        return statistics.mean(values) if values else None

    def owed(self, to: str) -> dict[int, float]:
        """What the metric of each seed loses with the attention of the start, or mean gains.

        Args:
            to: ``'start'`` (what the trained network owes to the attention) or ``'mean'`` (what it
                owes to the attention's looking at the image).
        """
        return {
            r.seed: r.metrics[self.metric] - r.knock_out[to][self.metric]
            for r in self.records
            if self.metric in r.knock_out.get(to, {})
        }

    @property
    def scalars(self) -> list[Mapping[str, Mapping[str, Sequence[float]]]]:
        """What alpha, T and the weight of the average became: scalar, stage, blocks."""
        return [r.scalars for r in self.records if r.scalars]

    @property
    def learned(self) -> dict[str, list[float]]:
        """By scalar, what it became in every block of every trial; see ``scalars``."""
        values: dict[str, list[float]] = {}
        for scalars in self.scalars:
            for name, stages in scalars.items():
                values.setdefault(name, []).extend(v for blocks in stages.values() for v in blocks)
        return values

    def median(self, key: str) -> float:
        """Median over its trials of one of their numbers, a field of ``FinishedTrial``."""
        median: float = statistics.median(getattr(r, key) for r in self.records)
        return median


def summarise_arms(
    plan: Plan, task: PlannedTask, trials: Sequence[FinishedTrial]
) -> list[ArmSummary]:
    """The arms of one task, in the order of the plan.

    Args:
        plan: The study's plan.
        task: One of its tasks.
        trials: The trials that count, of every task.
    """
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
            against = difference(name, first, values)
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
