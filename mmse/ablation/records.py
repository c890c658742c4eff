"""The files of trials that have ended, and which of them may be compared."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mmse.ablation.outcomes import POINTS, WINDOW, Outcome, count_spikes, target_of
from mmse.ablation.plan import Plan
from mmse.gates.dose import of_network
from mmse.utils.errors import UserError
from mmse.utils.files import read_json, write_json
from mmse.utils.text import name_some


@dataclass(frozen=True, kw_only=True)
class TrialHead:
    """Which trial it is.

    Args:
        id: Its name; see ``mmse.ablation.identity.trial_id``.
        task: Name of the task, empty if the study has one.
        arm: Name of the arm.
        seed: The seed.
        recipe: See ``mmse.ablation.identity.recipe_of``.
        results_version: See ``mmse.ablation.identity.RESULTS_VERSION``.
        data: Digest of the data; see ``mmse.datasets.digest``.
    """

    id: str
    task: str
    arm: str
    seed: int
    recipe: str
    results_version: int
    data: str


@dataclass(frozen=True, kw_only=True)
class TrialRecord(TrialHead):
    """What every trial that has ended leaves.

    Args:
        environment: Package versions and device; see ``mmse.ablation.provenance.environment``.
        commit: Commit of the package's source, if it is known; it decides nothing.
    """

    status: ClassVar[str]

    environment: Mapping[str, str]
    commit: str | None = None

    def write(self, file: Path) -> None:
        """Write the trial's file, whole or not at all."""
        write_json(file, {'status': self.status, **asdict(self)})


@dataclass(frozen=True, kw_only=True)
class FinishedTrial(TrialRecord):
    """A trial that trained to its end.

    Args:
        metrics: All metrics of the last validation.
        curves: By metric, (iteration, value) of every validation.
        loss: (Iteration, mean finite loss since the point before), at most 100 points.
        spikes: See ``mmse.ablation.outcomes.spikes``; None in trials of before it was counted.
        non_finite: Number of iterations whose loss was not finite; None likewise.
        iterations: Number of training iterations that were logged.
        training_time_s: Sum of the times of the training steps.
        step_time_s: Median time of a training step.
        peak_memory_bytes: Of the GPU, or of the process where there is none.
        parameters: Number of parameters of the model.
        scalars: What alpha, T and the weight of the average became: by scalar and stage, one value
            per block.
        dose: What the attention of each block did to the validation images at the end; see
            ``mmse.gates.dose.dose``. Empty without attention; None if it was not recorded.
        earlier: Of the validations before the last: ``'iteration'``, ``'dose'`` as above, and
            ``'scalars'`` by block.
        next_validation: The iteration of the validation that would have come after the end; None if
            it is not known.
        dose_curve: (Iteration, ``'moved'``, ``'over_images'``) of the network at every validation.
        knock_out: The metrics of the trained network with its attention as it was at the
            ``'start'``, and with every gain held at its ``'mean'`` over the validation images.
        pretraining: All metrics of the last validation of the training that gave the backbone's
            weights; empty without one.
        cpu_threads: torch's number of threads.
        log: What it logged of its iterations, and what it warned of.
    """

    status = 'finished'

    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[Sequence[float]]]
    loss: Sequence[Sequence[float]]
    iterations: int
    training_time_s: float
    step_time_s: float
    peak_memory_bytes: int
    parameters: int
    scalars: Mapping[str, Mapping[str, Sequence[float]]]
    cpu_threads: int
    log: Sequence[str]
    dose: Mapping[str, Mapping[str, float]] | None = None
    earlier: Sequence[Mapping[str, Any]] = ()
    next_validation: int | None = None
    dose_curve: Sequence[Sequence[float]] = ()
    knock_out: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pretraining: Mapping[str, float] = field(default_factory=dict)
    spikes: int | None = None
    non_finite: int | None = None

    def dose_of(self, key: str) -> float | None:
        """The dose of the network; None if it has no attention, or none was recorded.

        Args:
            key: See ``mmse.gates.dose.of_network``.
        """
        return of_network(self.dose, key) if self.dose else None

    def outcome(self, outcome: Outcome, metric: str) -> float | None:
        """A secondary outcome of the trial; None if it cannot say anything.

        Args:
            outcome: The outcome.
            metric: The metric of the trial's task.
        """
        if outcome.of == 'diverged':
            return 0.0
        if outcome.of in ('moved', 'over_images'):
            return self.dose_of(outcome.of)
        if outcome.of == 'non_finite':
            return None if self.non_finite is None else float(self.non_finite)
        if outcome.of == 'spikes':
            return self._spikes()
        if outcome.of == 'saturated':
            shares = [row['closed'] + row['open'] for row in (self.dose or {}).values()]
            return sum(shares) / len(shares) if shares else None
        target = target_of(outcome.of)
        if target is None:
            return self.metrics.get(outcome.of)
        curve = self.curves[metric]
        reached = [step for step, value in curve if value >= target]
        if reached or self.next_validation is None:
            return reached[0] if reached else curve[-1][0] + curve[0][0]
        return self.next_validation

    def _spikes(self) -> float | None:
        if self.spikes is None and self.iterations <= POINTS * WINDOW:
            # It did not count them, but its curve has the same points.
            return float(count_spikes([value for _, value in self.loss]))
        return None if self.spikes is None else float(self.spikes)


@dataclass(frozen=True, kw_only=True)
class FailedTrial(TrialRecord):
    """A trial that ended before its training did.

    Args:
        reason: Its exit code or signal.
        last_lines: The end of its log.
        diverged: Its loss was no longer finite.
    """

    status = 'failed'

    reason: str
    last_lines: Sequence[str]
    diverged: bool = False

    def outcome(self, outcome: Outcome, metric: str) -> float | None:
        """A secondary outcome, as that of a finished trial: whether it diverged is all it says."""
        return 1.0 if outcome.of == 'diverged' and self.diverged else None


def read_trial(file: Path) -> FinishedTrial | FailedTrial | None:
    """Read a trial's file.

    Returns:
        The trial; None if there is no file, because it has not ended.

    Raises:
        UserError: It is not a trial file of this version of mmse.
    """
    try:
        raw = read_json(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _foreign(file, error) from error
    try:
        kind = {k.status: k for k in (FinishedTrial, FailedTrial)}[raw['status']]
        return kind(**{key: value for key, value in raw.items() if key != 'status'})
    except (AttributeError, KeyError, TypeError) as error:
        raise _foreign(file, error) from error


def _foreign(file: Path, error: Exception) -> UserError:
    return UserError(f'{file} is not a trial file of this version of mmse ({error}): move it away')


def read_trials(folder: Path) -> list[FinishedTrial | FailedTrial]:
    """Every trial file of a folder of results, in the order of their names.

    Raises:
        UserError: One is not a trial file of this version of mmse.
    """
    files = sorted((folder / 'trials').glob('*.json'))
    return [trial for file in files if (trial := read_trial(file)) is not None]


def comparable(
    plan: Plan, trials: Iterable[FinishedTrial | FailedTrial]
) -> tuple[list[FinishedTrial | FailedTrial], list[str]]:
    """The trials that may be compared with each other, and what was left out.

    Trials of another config, arm, seed, data or results version than the plan has are left out. The
    rest belong together if they were made in the same environment; the group with the most finished
    trials is taken, and with it those that failed before they could say where.

    Returns:
        The trials of that group, and one line for each reason to leave others out.
    """
    groups: dict[str, list[FinishedTrial | FailedTrial]] = {}
    left: dict[str, list[str]] = {}
    for trial in trials:
        if reason := _why_not(trial, plan):
            left.setdefault(reason, []).append(trial.id)
        else:
            groups.setdefault(json.dumps(trial.environment, sort_keys=True), []).append(trial)
    nowhere = groups.pop('{}', [])
    ordered = sorted(
        groups.items(), key=lambda item: sum(isinstance(t, FinishedTrial) for t in item[1])
    )
    chosen = [*nowhere, *(ordered.pop()[1] if ordered else [])]
    left |= {f'environment {name}': [trial.id for trial in group] for name, group in ordered}
    return chosen, [
        f'{len(ids)} trials left out: {reason} ({name_some(ids)})' for reason, ids in left.items()
    ]


def of_other_data(plan: Plan, trials: Iterable[TrialRecord]) -> list[str]:
    """The names of trials that differ from the plan in their data alone."""
    return [trial.id for trial in trials if _why_not(trial, plan) == OTHER_DATA]


OTHER_DATA = 'their data have changed since'


def _why_not(trial: TrialRecord, plan: Plan) -> str | None:
    """Why a trial does not belong to the plan; None if it does."""
    variant = plan.variant(trial.task, trial.arm)
    if variant is None or trial.recipe != variant.recipe or trial.seed not in plan.seeds:
        return 'another config, arm or seed than the plan has now'
    if trial.results_version != plan.results_version:
        return f'results version {trial.results_version} instead of {plan.results_version}'
    if trial.data != variant.data:
        return OTHER_DATA
    return None
