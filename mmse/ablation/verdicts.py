"""From trials to verdicts: contrasts of a metric and of secondary outcomes, look by look."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mmse.ablation.contrasts import Contrast
from mmse.ablation.looks import LEVEL, levels
from mmse.ablation.plan import Plan, PlannedContrast, PlannedTask, PlannedVariant
from mmse.ablation.records import FailedTrial, FinishedTrial
from mmse.ablation.stats import UNDECIDED, Estimate, estimate, holm, verdict
from mmse.models.settings import describe

Values = Mapping[str, Mapping[int, float]]  # by arm and seed
CONSTANT = '; the gains hardly depend on the image'
EXPLORATORY = 'exploratory'
NOT_TESTED = 'not tested'
OPEN = (UNDECIDED, NOT_TESTED, EXPLORATORY)  # what a later look may change
NOTHING = describe(None)
PRIMARY = ''  # the outcome that is the metric of the task


@dataclass(frozen=True)
class ContrastSummary:
    """One contrast of one outcome.

    Args:
        task: Name of the task.
        outcome: Name of the secondary outcome; empty for the metric of the task.
        name: Name of the contrast.
        description: What is compared, in words.
        registered: Whether it stood in the plan before the first trial ended.
        smallest_effect: The smallest effect of interest.
        estimate: Of the seeds of the look that decided it, or of the last that was reached; of all
            seeds where none was.
        p: After Holm's correction, where it is registered.
        verdict: In words.
    """

    task: str
    outcome: str
    name: str
    description: str
    registered: bool
    smallest_effect: float
    estimate: Estimate
    p: float
    verdict: str

    @property
    def coverage(self) -> str:
        """How probably its intervals cover, such as ``95%``."""
        return f'{100 * (1 - self.estimate.level):.3g}%'

    @property
    def digits(self) -> int:
        """Decimals that tell a hundredth of the smallest effect of interest."""
        return decimals(self.smallest_effect)


def decimals(smallest_effect: float) -> int:
    """Decimals that tell a hundredth of the smallest effect of interest."""
    return max(0, 2 - math.floor(math.log10(smallest_effect)))


@dataclass(frozen=True)
class _Question:
    """A contrast with the values that it is about."""

    task: PlannedTask
    outcome: str
    contrast: PlannedContrast
    smallest_effect: float
    values: Values
    attended: Sequence[PlannedVariant]
    trials: Sequence[FinishedTrial]

    def estimate(self, seeds: Collection[int], level: float) -> Estimate:
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

    def is_constant(self, seeds: Collection[int], smallest_dose: float) -> bool:
        """Whether the gains of no arm depend on the image by much, as those of a plain network.

        A gain that is the same for every image is a factor of the norm before it.
        """
        medians = [
            statistics.median([trial.dose_of('over_images') or 0.0 for trial in own])
            for variant in self.attended
            if (own := self._of(variant, seeds))
        ]
        return bool(medians) and max(medians) < smallest_dose

    def _of(self, variant: PlannedVariant, seeds: Collection[int]) -> list[FinishedTrial]:
        return [t for t in self.trials if t.arm == variant.arm and t.seed in seeds]


def judge(
    plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]
) -> tuple[list[ContrastSummary], list[str]]:
    """All contrasts of all outcomes of a study.

    The contrasts of the metrics are one family for Holm's correction, those of the secondary
    outcomes another. A contrast keeps the verdict, and the numbers, of the look that decided it.

    Args:
        plan: The plan.
        trials: Its trials that have ended and belong together.

    Returns:
        The contrasts, and what is to be said of the looks.
    """
    reached = _reached(plan, trials)
    questions = _questions(plan, trials)
    families = [
        [q for q in questions if (q.outcome == PRIMARY) is primary] for primary in (True, False)
    ]
    summaries = [summary for family in families for summary in _family(plan, family, reached)]
    return summaries, _notes(plan, trials, reached)


def _reached(
    plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]
) -> list[tuple[Sequence[int], float]]:
    """The seeds and the level of each look whose trials have all ended."""
    ended = {(trial.task, trial.arm, trial.seed) for trial in trials}
    needed = [(variant.task, variant.arm) for variant in plan.variants]
    reached = []
    for look, level in zip(plan.looks, levels(plan.looks) if plan.looks else (), strict=True):
        seeds = plan.seeds[:look]
        whole = all((*variant, seed) in ended for variant in needed for seed in seeds)
        if whole and len(seeds) == look:
            reached.append((seeds, level))
    return reached


def _questions(plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]) -> list[_Question]:
    questions = []
    for task in plan.tasks:
        variants = [variant for variant in plan.variants if variant.task == task.name]
        own = [trial for trial in trials if trial.task == task.name]
        finished = [trial for trial in own if isinstance(trial, FinishedTrial)]
        metric = _by_arm(variants, [(t, t.metrics[task.metric]) for t in finished])
        outcomes: list[tuple[str, float, Values]] = [(PRIMARY, task.smallest_effect, metric)]
        for outcome in task.secondary:
            values = _by_arm(variants, [(t, t.outcome(outcome, task.metric)) for t in own])
            outcomes.append((outcome.name, outcome.smallest_effect, values))
        for name, smallest, values in outcomes:
            for contrast in plan.contrasts:
                # A network without attention has no gates that could be saturated.
                if name and any(own and not values[arm] for arm in contrast.weights):
                    continue
                attended = [
                    v for v in variants if v.arm in contrast.weights and v.attention != NOTHING
                ]
                questions.append(
                    _Question(task, name, contrast, smallest, values, attended, finished)
                )
    return questions


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


def _family(
    plan: Plan, family: Sequence[_Question], reached: Sequence[tuple[Sequence[int], float]]
) -> list[ContrastSummary]:
    registered = [i for i, question in enumerate(family) if question.contrast.registered]
    found: dict[int, tuple[Estimate, float, str]] = {}
    for seeds, level in reached or [(plan.seeds, LEVEL)]:
        estimates = [question.estimate(seeds, level) for question in family]
        corrected = dict(zip(registered, holm([estimates[i].p for i in registered]), strict=True))
        for i, question in enumerate(family):
            if i in found and not found[i][2].startswith(OPEN):
                continue  # decided by an earlier look
            p = corrected.get(i, estimates[i].p)
            found[i] = estimates[i], p, _said(plan, question, estimates[i], p, seeds, bool(reached))
    return [
        ContrastSummary(
            question.task.name,
            question.outcome,
            question.contrast.name,
            question.contrast.description,
            question.contrast.registered,
            question.smallest_effect,
            *found[i],
        )
        for i, question in enumerate(family)
    ]


def _said(
    plan: Plan,
    question: _Question,
    estimate: Estimate,
    p: float,
    seeds: Sequence[int],
    is_look: bool,
) -> str:
    """The verdict of one look in words; where it is no look, that it is not time yet."""
    if not plan.looks:
        return f'{EXPLORATORY}: the seeds were changed after trials had ended'
    if not question.contrast.registered:
        return f'{EXPLORATORY}: added or changed after the first results'
    if why := question.untested(seeds, plan.smallest_dose):
        return why
    if not is_look:
        return f'not yet: {len(estimate.differences)} of {plan.looks[0]} seeds'
    words = ('helps', 'hurts') if question.outcome == PRIMARY else ('higher', 'lower')
    said = verdict(estimate, p, question.smallest_effect, words)
    return said + CONSTANT * question.is_constant(seeds, plan.smallest_dose)


def _notes(
    plan: Plan,
    trials: Sequence[FinishedTrial | FailedTrial],
    reached: Sequence[tuple[Sequence[int], float]],
) -> list[str]:
    """Which look the verdicts are of, and which seeds do not count for them."""
    notes = []
    if len(plan.looks) > 1:
        spent = ' and '.join(f'{level:.2g}' for level in levels(plan.looks))
        notes.append(
            f'Look {len(reached)} of {len(plan.looks)} was reached (at '
            f'{" and ".join(map(str, plan.looks))} seeds). The looks spend {spent} of the level '
            f"of {LEVEL} (Lan and DeMets, O'Brien-Fleming type); intervals cover accordingly"
        )
    counted = reached[-1][0] if reached else plan.seeds
    later = sorted({trial.seed for trial in trials} - set(counted))
    beyond = [seed for seed in later if seed not in plan.seeds[: max(plan.looks, default=0)]]
    if set(later) - set(beyond):
        notes.append('Seeds beyond the last look that was reached do not count for contrasts yet')
    if beyond:
        notes.append(
            f'Seeds {", ".join(map(str, beyond))} were added after trials had ended, without a '
            'look in the plan: they are exploratory and do not count for the contrasts'
        )
    return notes


def difference(arm: str, first: str, values: Values) -> Estimate:
    """The paired difference of an arm from another, over all their seeds; it is exploratory."""
    return estimate(Contrast(f'{arm} - {first}', {arm: 1.0, first: -1.0}, ''), values)
