"""From trials to verdicts: contrasts of a metric and of secondary outcomes, look by look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmse.ablation.contrasts import Contrast
from mmse.ablation.looks import LEVEL, levels
from mmse.ablation.plan import Plan
from mmse.ablation.questions import NOT_TESTED, PRIMARY, Question, Values, questions
from mmse.ablation.records import FailedTrial, FinishedTrial
from mmse.ablation.stats import NO_EFFECT, UNDECIDED, Estimate, estimate, holm, verdict

OWED = {  # by what takes the place of the learned gains, the first that holds
    'start': '; hardly anything hangs on the attention',
    'mean': '; hardly anything is owed to looking at the image',
}
EXPLORATORY = 'exploratory'
NOT_YET = 'not yet'
OPEN = (UNDECIDED, NOT_TESTED, EXPLORATORY)  # what a later look may change


@dataclass(frozen=True)
class ContrastSummary:
    """One contrast of one outcome.

    Args:
        task: Name of the task; ``ACROSS`` of a comparison across tasks.
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


def judge(
    plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]
) -> tuple[list[ContrastSummary], list[str]]:
    """All contrasts of all outcomes of a study.

    The contrasts of the metrics, with the comparisons across tasks, are one family for Holm's
    correction, those of the secondary outcomes another. A contrast keeps the verdict, and the
    numbers, of the look that decided it.

    Args:
        plan: The plan.
        trials: Its trials that have ended and belong together.

    Returns:
        The contrasts, and what is to be said of the looks.
    """
    reached = _reached(plan, trials)
    asked = questions(plan, trials)
    families = [
        [q for q in asked if (q.outcome == PRIMARY) is primary] for primary in (True, False)
    ]
    summaries = [summary for family in families for summary in _family(plan, family, reached)]
    return summaries, _notes(plan, trials, reached)


def _reached(
    plan: Plan, trials: Sequence[FinishedTrial | FailedTrial]
) -> list[tuple[Sequence[int], float]]:
    """The seeds and the level of each look of a plan whose trials have all ended."""
    ended = {(trial.task, trial.arm, trial.seed) for trial in trials}
    needed = [(variant.task, variant.arm) for variant in plan.variants]
    reached = []
    for look, level in zip(plan.looks, levels(plan.looks) if plan.looks else (), strict=True):
        seeds = plan.seeds[:look]
        whole = all((*variant, seed) in ended for variant in needed for seed in seeds)
        if whole and len(seeds) == look:
            reached.append((seeds, level))
    return reached


def _family(
    plan: Plan, family: Sequence[Question], reached: Sequence[tuple[Sequence[int], float]]
) -> list[ContrastSummary]:
    registered = [i for i, question in enumerate(family) if question.registered]
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
            question.task,
            question.outcome,
            question.contrast.name,
            question.contrast.description,
            question.registered,
            question.smallest_effect,
            *found[i],
        )
        for i, question in enumerate(family)
    ]


def _said(
    plan: Plan,
    question: Question,
    estimate: Estimate,
    p: float,
    seeds: Sequence[int],
    is_look: bool,
) -> str:
    """The verdict of one look in words; where it is no look, that it is not time yet."""
    if not plan.looks:
        return f'{EXPLORATORY}: the seeds were changed after trials had ended'
    if not question.registered:
        return f'{EXPLORATORY}: added or changed after the first results'
    if why := question.untested(seeds, plan.smallest_dose):
        return why
    if not is_look:
        return f'{NOT_YET}: {len(estimate.differences)} of {plan.looks[0]} seeds'
    if not estimate.differences:
        return f'{NOT_TESTED}: no seed has a value for every arm'
    words = ('helps', 'hurts') if question.outcome == PRIMARY else ('higher', 'lower')
    if question.contrast.is_interaction:
        words = ('positive', 'negative')
    said = verdict(estimate, p, question.smallest_effect, words)
    if said.startswith(NO_EFFECT) and question.resolution > question.smallest_effect:
        said = f'{UNDECIDED}: validations are {question.resolution:g} iterations apart'
    if missing := len(seeds) - len(estimate.differences):
        said += f'; no value in {missing} of {len(seeds)} seeds'
    if question.outcome == PRIMARY:
        said += next((text for to, text in OWED.items() if question.hardly_owes(seeds, to)), '')
    return said


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
