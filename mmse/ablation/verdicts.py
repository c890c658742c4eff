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
        estimate: Of the seeds of the last look that was reached; of all where none was.
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
    untested: str | None
    is_constant: bool

    def estimate(self, seeds: Collection[int], level: float) -> Estimate:
        values = {
            arm: {seed: value for seed, value in by_seed.items() if seed in seeds}
            for arm, by_seed in self.values.items()
        }
        return estimate(self.contrast, values, level)


def judge(
    plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]
) -> tuple[list[ContrastSummary], list[str]]:
    """All contrasts of all outcomes of a study.

    The contrasts of the metrics are one family for Holm's correction, those of the secondary
    outcomes another. A contrast keeps the verdict of the first look that decided it.

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
        arms = [variant.arm for variant in variants]
        own = [trial for trial in trials if trial.task == task.name]
        untested = _untested_arms(plan, variants, own)
        constant = {arm for arm in arms if _is_constant(plan, arm, own)}

        def by_seed(of: Mapping[int, float | None]) -> dict[int, float]:
            return {seed: value for seed, value in of.items() if value is not None}

        metric: Values = {
            arm: {
                t.seed: t.metrics[task.metric]
                for t in own
                if t.arm == arm and isinstance(t, FinishedTrial)
            }
            for arm in arms
        }
        outcomes: list[tuple[str, float, Values]] = [(PRIMARY, task.smallest_effect, metric)]
        for outcome in task.secondary:
            values: Values = {
                arm: by_seed({t.seed: t.outcome(outcome, task.metric) for t in own if t.arm == arm})
                for arm in arms
            }
            outcomes.append((outcome.name, outcome.smallest_effect, values))
        for name, smallest, values in outcomes:
            for contrast in plan.contrasts:
                # A network without attention has no gates that could be saturated.
                if name and any(own and not values[arm] for arm in contrast.weights):
                    continue
                why = next((untested[arm] for arm in contrast.weights if arm in untested), None)
                question = _Question(
                    task, name, contrast, smallest, values, why, constant >= set(contrast.weights)
                )
                questions.append(question)
    return questions


def _untested_arms(
    plan: Plan,
    variants: Sequence[PlannedVariant],
    trials: Sequence[FinishedTrial | FailedTrial],
) -> dict[str, str]:
    """The arms whose attention did not do enough for a verdict, and why, in words."""
    untested = {}
    for variant in variants:
        arm = variant.arm
        finished = [t for t in trials if t.arm == arm and isinstance(t, FinishedTrial)]
        if variant.attention != describe(None) and any(t.dose is None for t in finished):
            untested[arm] = f'not tested: the dose of {arm} was not recorded'
            continue
        doses = [dose for t in finished if (dose := t.dose_of('moved')) is not None]
        if doses and (middle := statistics.median(doses)) < plan.smallest_dose:
            untested[arm] = (
                f'not tested: the attention hardly moved (dose {middle:.2g} of {arm}, '
                f'less than {plan.smallest_dose:g})'
            )
    return untested


def _is_constant(plan: Plan, arm: str, trials: Sequence[FinishedTrial | FailedTrial]) -> bool:
    """Whether the gains of an arm hardly depend on the image, as those of a plain network.

    A gain that is the same for every image is a factor of the norm before it.
    """
    own = [
        t for t in trials if t.arm == arm and isinstance(t, FinishedTrial) and t.dose is not None
    ]
    doses = [t.dose_of('over_images') or 0.0 for t in own]
    return bool(doses) and statistics.median(doses) < plan.smallest_dose


def _family(
    plan: Plan, family: Sequence[_Question], reached: Sequence[tuple[Sequence[int], float]]
) -> list[ContrastSummary]:
    registered = [i for i, question in enumerate(family) if question.contrast.registered]
    decided: dict[int, str] = {}
    latest: dict[int, tuple[Estimate, float]] = {}
    for seeds, level in reached or [(plan.seeds, LEVEL)]:
        estimates = [question.estimate(seeds, level) for question in family]
        latest = {i: (estimate, estimate.p) for i, estimate in enumerate(estimates)}
        for i, p in zip(registered, holm([estimates[i].p for i in registered]), strict=True):
            latest[i] = estimates[i], p
            words = ('helps', 'hurts') if family[i].outcome == PRIMARY else ('higher', 'lower')
            said = verdict(estimates[i], p, family[i].smallest_effect, words)
            if not decided.get(i, UNDECIDED).startswith(UNDECIDED):
                continue
            decided[i] = said
    summaries = []
    for i, question in enumerate(family):
        found, p = latest[i]
        said = decided.get(i, 'exploratory: added after the first results')
        if not plan.looks:
            said = 'exploratory: the seeds were changed after trials had ended'
        elif question.contrast.registered:
            said = question.untested or said + CONSTANT * question.is_constant
            if not reached and question.untested is None:
                said = f'not yet: {len(found.differences)} of {plan.looks[0]} seeds'
        summaries.append(
            ContrastSummary(
                question.task.name,
                question.outcome,
                question.contrast.name,
                question.contrast.description,
                question.contrast.registered,
                question.smallest_effect,
                found,
                p,
                said,
            )
        )
    return summaries


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
