"""What a study asks of its trials: every contrast of every outcome, with the values it is about."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmse.ablation.contrasts import Contrast
from mmse.ablation.outcomes import Outcome, target_of
from mmse.ablation.plan import Plan, PlannedAcross, PlannedTask, PlannedVariant
from mmse.ablation.records import FailedTrial, FinishedTrial
from mmse.ablation.stats import Estimate, estimate

Values = Mapping[str, Mapping[int, float]]  # by arm and seed
NOT_TESTED = 'not tested'
OF_ATTENTION = ('saturated', 'moved', 'over_images')  # outcomes of no plain network
PRIMARY = ''  # the outcome that is the metric of the task
ACROSS = ''  # the task of what is compared across tasks, which then have names


@dataclass(frozen=True)
class Question:
    """A contrast with the values that it is about.

    Args:
        task: Name of the task; ``ACROSS`` for a comparison across tasks.
        outcome: Name of the secondary outcome, or ``PRIMARY``.
        contrast: The contrast.
        registered: Whether it and the outcome stood in the plan before the first trial ended.
        smallest_effect: The smallest effect of interest.
        metric: The metric of the task; None for a comparison across tasks.
        values: The values by arm and seed.
        attended: The variants with attention that it compares.
        trials: The finished trials, at least those of its arms.
        resolution: Values of the outcome that lie closer to each other than this read the same.
    """

    task: str
    outcome: str
    contrast: Contrast
    registered: bool
    smallest_effect: float
    metric: str | None
    values: Values
    attended: Sequence[PlannedVariant]
    trials: Sequence[FinishedTrial]
    resolution: float = 0.0

    def estimate(self, seeds: Collection[int], level: float) -> Estimate:
        """The estimate from some of the seeds, with intervals of a level."""
        values = {
            arm: {seed: value for seed, value in by_seed.items() if seed in seeds}
            for arm, by_seed in self.values.items()
        }
        return estimate(self.contrast, values, level)

    def untested(self, seeds: Collection[int], smallest_dose: float) -> str | None:
        """Why the attention of its arms did too little for a verdict, in words; None if not."""
        for variant in self.attended:
            own = self._of(variant, seeds)
            if any(trial.dose is None for trial in own):
                return f'{NOT_TESTED}: the dose of {variant.arm} was not recorded'
            doses = [dose for trial in own if (dose := trial.dose_of('moved')) is not None]
            if doses and (middle := statistics.median(doses)) < smallest_dose:
                return (
                    f'{NOT_TESTED}: the attention hardly moved (dose {middle:.2g} of '
                    f'{variant.arm}, less than {smallest_dose:g})'
                )
        return None

    def hardly_owes(self, seeds: Collection[int], to: str) -> bool:
        """Whether the metric of every arm hardly changes with other gains.

        Args:
            seeds: The seeds that count.
            to: ``'start'`` for the gains of the attention at its start: whether it changes in
                either direction, the mean over the seeds; ``'mean'`` for their mean over the
                images, which a norm before them can give as well: whether it loses on average.
        """
        if self.metric is None:
            return False
        owed = [self._owed(variant, seeds, self.metric, to) for variant in self.attended]
        if to == 'start':
            owed = [[abs(part) for part in parts] for parts in owed]
        return bool(owed) and all(
            parts and is_hardly(statistics.mean(parts), self.smallest_effect) for parts in owed
        )

    def _owed(
        self, variant: PlannedVariant, seeds: Collection[int], metric: str, to: str
    ) -> list[float]:
        return [
            trial.metrics[metric] - trial.knock_out[to][metric]
            for trial in self._of(variant, seeds)
            if metric in trial.knock_out.get(to, {})
        ]

    def _of(self, variant: PlannedVariant, seeds: Collection[int]) -> list[FinishedTrial]:
        place = (variant.task, variant.arm)
        return [t for t in self.trials if (t.task, t.arm) == place and t.seed in seeds]


def is_hardly(change: float, smallest_effect: float) -> bool:
    """Whether a change is at most a third of what matters: two arms then differ by less."""
    return abs(change) <= smallest_effect / 3


def questions(plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]) -> list[Question]:
    """Every question of a plan.

    Args:
        plan: The plan.
        trials: Its trials that have ended and belong together.
    """
    found = [question for task in plan.tasks for question in _of_task(plan, task, trials)]
    return found + [_across(plan, across, found) for across in plan.across]


def _of_task(
    plan: Plan, task: PlannedTask, trials: Sequence[FinishedTrial | FailedTrial]
) -> list[Question]:
    variants = [variant for variant in plan.variants if variant.task == task.name]
    own = [trial for trial in trials if trial.task == task.name]
    finished = [trial for trial in own if isinstance(trial, FinishedTrial)]
    attends = {variant.arm: variant.attends for variant in variants}
    metric = _by_arm(variants, [(t, t.metrics[task.metric]) for t in finished])
    outcomes: list[tuple[Outcome | None, Values]] = [(None, metric)]
    for outcome in task.secondary:
        values = _by_arm(variants, [(t, t.outcome(outcome, task.metric)) for t in own])
        outcomes.append((outcome, values))
    found = []
    for asked, values in outcomes:
        resolution = 0.0
        if asked is not None and target_of(asked.of) is not None:
            resolution = max((_apart(t, task.metric) for t in finished), default=0.0)
        for contrast in plan.contrasts:
            if asked and asked.of in OF_ATTENTION and not all(map(attends.get, contrast.weights)):
                continue
            registered = contrast.registered and not (asked and asked.name in task.exploratory)
            found.append(
                Question(
                    task.name,
                    asked.name if asked else PRIMARY,
                    contrast,
                    registered,
                    asked.smallest_effect if asked else task.smallest_effect,
                    task.metric,
                    values,
                    [v for v in variants if v.arm in contrast.weights and v.attends],
                    finished,
                    resolution,
                )
            )
    return found


def _apart(trial: FinishedTrial, metric: str) -> float:
    """The most iterations between two validations of a trial."""
    steps = [0.0, *(step for step, _ in trial.curves[metric])]
    return max(after - before for before, after in pairwise(steps))


def _across(plan: Plan, across: PlannedAcross, found: Sequence[Question]) -> Question:
    """A comparison across tasks, from the questions of the tasks."""
    parts = [
        (task, weight, next(q for q in found if _is(q, task, across.contrast)))
        for task, weight in across.weights.items()
    ]
    weights = {
        f'{task}: {arm}': weight * own
        for task, weight, question in parts
        for arm, own in question.contrast.weights.items()
    }
    values = {
        f'{task}: {arm}': {s: v / question.smallest_effect for s, v in by_seed.items()}
        for task, _, question in parts
        for arm, by_seed in question.values.items()
    }
    return Question(
        ACROSS,
        PRIMARY,
        Contrast(across.name, weights, across.description),
        across.registered,
        1.0,
        None,
        values,
        [variant for _, _, question in parts for variant in question.attended],
        [trial for _, _, question in parts for trial in question.trials],
    )


def _is(question: Question, task: str, contrast: str) -> bool:
    named = (question.task, question.outcome, question.contrast.name)
    return named == (task, PRIMARY, contrast)


def _by_arm(
    variants: Sequence[PlannedVariant],
    pairs: Sequence[tuple[FinishedTrial | FailedTrial, float | None]],
) -> Values:
    return {
        variant.arm: {
            trial.seed: value
            for trial, value in pairs
            if trial.arm == variant.arm and value is not None
        }
        for variant in variants
    }
