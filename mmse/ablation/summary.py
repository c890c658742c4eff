"""What the trial files of a study add up to: the numbers that its report shows."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmse.ablation.arms import ArmSummary, summarise_arms
from mmse.ablation.plan import Plan, PlannedPretraining, read_plan
from mmse.ablation.questions import ACROSS
from mmse.ablation.records import FailedTrial, FinishedTrial, comparable, read_trials
from mmse.ablation.stats import SECONDARY, reach
from mmse.ablation.verdicts import ContrastSummary, decimals, judge

# mmseg's metrics, which have no prefix, and mmpretrain's.
PERCENT = re.compile(
    r'(mIoU|aAcc|mAcc|mDice|mFscore|mPrecision|mRecall)|(accuracy|(single|multi)-label)/.*'
)


@dataclass(frozen=True)
class TaskSummary:
    """One task: its arms and contrasts."""

    name: str
    base: str
    metric: str
    smallest_effect: float
    smallest_dose: float
    arms: Sequence[ArmSummary]
    contrasts: Sequence[ContrastSummary]
    secondary: Sequence[ContrastSummary]
    pretraining: PlannedPretraining | None

    @property
    def pretrained(self) -> float | None:
        """Mean over seeds of the metric of the networks that the arms start from."""
        if self.pretraining is None:
            return None
        by_seed = {
            r.seed: r.pretraining[self.pretraining.metric]
            for arm in self.arms
            for r in arm.records
            if r.pretraining
        }
        return statistics.mean(by_seed.values()) if by_seed else None

    @property
    def metric_label(self) -> str:
        """The metric with its unit, as far as it is known.

        mmdet's mAP is a share of 1; mmseg's and mmpretrain's metrics are percentages.
        """
        name = self.metric.rpartition('/')[2]
        unit = ' (%)' if PERCENT.fullmatch(self.metric) else ' (0 to 1)' if 'mAP' in name else ''
        return name.replace('_', ' ', 1) + unit

    @property
    def digits(self) -> int:
        """Decimals that tell a hundredth of the smallest effect of interest."""
        return decimals(self.smallest_effect)

    @property
    def attended(self) -> list[ArmSummary]:
        """The arms whose attention was watched."""
        return [arm for arm in self.arms if arm.dose is not None]


@dataclass(frozen=True)
class Summary:
    """A whole study."""

    name: str
    tasks: Sequence[TaskSummary]
    notes: Sequence[str]
    failed: Sequence[FailedTrial]
    provenance: str
    across: Sequence[ContrastSummary]

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
    counted, left_out = comparable(plan, trials)
    finished = [trial for trial in counted if isinstance(trial, FinishedTrial)]
    missing = [trial for trial in counted if isinstance(trial, FailedTrial)]
    judged, notes = judge(plan, counted)
    primary = [c for c in judged if not c.outcome]
    return Summary(
        plan.name,
        [
            TaskSummary(
                task.name,
                task.base,
                task.metric,
                task.smallest_effect,
                plan.smallest_dose,
                summarise_arms(plan, task, finished),
                [c for c in primary if c.task == task.name],
                [c for c in judged if c.outcome and c.task == task.name],
                task.pretraining,
            )
            for task in plan.tasks
        ],
        [*_power(plan, judged), *notes, *_missing(plan, missing), *left_out],
        [trial for trial in trials if isinstance(trial, FailedTrial)],
        _provenance(finished),
        [c for c in primary if plan.across and c.task == ACROSS],
    )


def _power(plan: Plan, judged: Sequence[ContrastSummary]) -> list[str]:
    """What the seeds can show: of each family, for the contrast that has the most of them."""
    lines = []
    for primary, what in ((True, 'contrasts'), (False, SECONDARY)):
        family = [c for c in judged if c.registered and (not c.outcome) is primary and plan.looks]
        best = max((c.estimate for c in family), key=lambda e: len(e.differences), default=None)
        if best is not None:
            lines.append(reach(len(best.differences), len(family), best.level, what))
        elif primary:
            lines.append(reach(0, 0))
    return lines


def _missing(plan: Plan, failed: Sequence[FailedTrial]) -> list[str]:
    """How many trials of each arm have failed: their seeds are missing in its contrasts."""
    notes = []
    for variant in plan.variants:
        own = [t for t in failed if (t.task, t.arm) == (variant.task, variant.arm)]
        if own:
            diverged = sum(trial.diverged for trial in own)
            notes.append(
                f'{len(own)} trials of {variant.task} {variant.arm} failed, {diverged} of them '
                'because they diverged: their seeds are missing in every contrast of the arm'
            )
    return notes


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
