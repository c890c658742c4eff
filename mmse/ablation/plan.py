"""The plan of a study: the question as it stood when its trials were run, kept beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmse.ablation.across import Across
from mmse.ablation.contrasts import Contrast
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.outcomes import Outcome
from mmse.ablation.study import SMALLEST_DOSE, Study
from mmse.ablation.variants import Trial
from mmse.models.settings import describe
from mmse.utils.errors import UserError
from mmse.utils.files import read_json

NOTHING = describe(None)


@dataclass(frozen=True)
class PlannedPretraining:
    """What gives the backbones' weights; see ``mmse.ablation.tasks.Pretraining``.

    Args:
        base: The training config.
        metric: The metric that says how good the network has become.
        config: The full training config, as text.
    """

    base: str
    metric: str
    config: str


@dataclass(frozen=True)
class PlannedTask:
    """A task; see ``mmse.ablation.tasks.Task``."""

    name: str
    base: str
    metric: str
    smallest_effect: float
    secondary: Sequence[Outcome] = ()
    pretraining: PlannedPretraining | None = None
    exploratory: Sequence[str] = ()  # outcomes that were added or changed after trials had ended


@dataclass(frozen=True)
class PlannedArm:
    """An arm; see ``mmse.ablation.study.Arm``."""

    name: str
    levels: Mapping[str, str]


@dataclass(frozen=True)
class PlannedContrast(Contrast):
    """A contrast, and whether it was registered before the first trial ended.

    Args:
        registered: False makes it exploratory: it gets no verdict.
    """

    registered: bool


@dataclass(frozen=True)
class PlannedAcross(Across):
    """A comparison across tasks, and whether it was registered before the first trial ended."""

    registered: bool


@dataclass(frozen=True)
class PlannedVariant:
    """One arm on one task.

    Args:
        task: Name of the task.
        arm: Name of the arm.
        recipe: See ``mmse.ablation.identity.recipe_of``.
        data: Digest of the data; see ``mmse.datasets.digest``.
        attention: The resolved attention, in words.
        config: The full training config, as text.
    """

    task: str
    arm: str
    recipe: str
    data: str
    attention: str
    config: str

    @property
    def attends(self) -> bool:
        """Whether a backbone of it has attention."""
        return set(self.attention.split('; ')) != {NOTHING}


@dataclass(frozen=True)
class Plan:
    """All of a study that its report is made from, the trials apart.

    Args:
        name: Name of the study.
        start: How the attention starts, ``'identity'`` or ``'default'``.
        seeds: The seeds, in the order in which they count.
        looks: The numbers of seeds at which verdicts are given, as they stood before the first
            trial ended; none if the seeds that they count were changed later.
        counted: The seeds that they count.
        smallest_dose: What the attention of an arm must have moved for a verdict.
        across: The comparisons across tasks.
        results_version: See ``mmse.ablation.identity.RESULTS_VERSION``.
        tasks: The tasks.
        arms: The arms.
        factors: The levels of every factor.
        contrasts: The contrasts.
        variants: Every arm on every task.
    """

    name: str
    start: str
    seeds: Sequence[int]
    results_version: int
    tasks: Sequence[PlannedTask]
    arms: Sequence[PlannedArm]
    factors: Mapping[str, Sequence[str]]
    contrasts: Sequence[PlannedContrast]
    variants: Sequence[PlannedVariant]
    looks: Sequence[int]
    counted: Sequence[int]
    smallest_dose: float
    across: Sequence[PlannedAcross] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> 'Plan':
        """The plan that ``dataclasses.asdict`` made the JSON of."""
        rows = {
            'tasks': PlannedTask,
            'arms': PlannedArm,
            'contrasts': PlannedContrast,
            'variants': PlannedVariant,
            'across': PlannedAcross,
        }
        typed = {key: [row(**r) for r in raw.get(key, ())] for key, row in rows.items()}
        tasks = [
            replace(
                task,
                secondary=[Outcome(**outcome) for outcome in task.secondary],
                pretraining=task.pretraining and PlannedPretraining(**task.pretraining),
                exploratory=tuple(task.exploratory),
            )
            for task in typed['tasks']
        ]
        # Plans once had one look, and said nothing of the dose.
        old = {
            'looks': [len(raw['seeds'])],
            'counted': raw['seeds'],
            'smallest_dose': SMALLEST_DOSE,
        }
        return cls(**{**old, **raw, **typed, 'tasks': tasks})

    def variant(self, task: str, arm: str) -> PlannedVariant | None:
        """The variant of a task and an arm, if the plan has both."""
        return next((v for v in self.variants if (v.task, v.arm) == (task, arm)), None)


def plan_of(study: Study, trials: Sequence[Trial]) -> Plan:
    """The plan of a study before any of its trials has ended.

    Args:
        study: The study.
        trials: All its trials; see ``mmse.ablation.variants.trials_of``.
    """
    return Plan(
        name=study.name,
        start=study.start,
        seeds=study.seeds,
        results_version=RESULTS_VERSION,
        looks=study.looks,
        counted=study.seeds[: study.looks[-1]],
        smallest_dose=study.smallest_dose,
        tasks=[
            PlannedTask(
                task.name,
                task.base,
                task.metric,
                task.smallest_effect,
                task.secondary,
                _planned_pretraining(task.name, trials),
            )
            for task in study.tasks
        ],
        arms=[PlannedArm(arm.name, dict(arm.levels)) for arm in study.arms],
        factors=dict(study.factors),
        contrasts=[
            PlannedContrast(c.name, dict(c.weights), c.description, registered=True)
            for c in study.contrasts
        ],
        across=[PlannedAcross(**vars(a), registered=True) for a in study.across],
        variants=[
            PlannedVariant(
                trial.variant.task.name,
                trial.variant.arm.name,
                trial.variant.recipe,
                trial.data,
                trial.variant.attention,
                trial.variant.cfg.pretty_text,
            )
            for trial in trials
            if trial.seed == study.seeds[0]
        ],
    )


def _planned_pretraining(task: str, trials: Sequence[Trial]) -> PlannedPretraining | None:
    variant = next(t.variant.pretraining for t in trials if t.variant.task.name == task)
    if variant is None:
        return None
    return PlannedPretraining(variant.task.base, variant.task.metric, variant.cfg.pretty_text)


def read_plan(folder: Path) -> Plan:
    """The plan that the trials of a folder were run for.

    Raises:
        UserError: There is none, or it is not one of this version of mmse.
    """
    file = folder / 'plan.json'
    if not file.is_file():
        raise UserError(f'{folder} has no plan.json: run the ablation first (tools/ablate.py run)')
    return read_file(file)


def read_file(file: Path) -> Plan:
    """The plan that a file holds.

    Raises:
        UserError: It is not one of this version of mmse.
    """
    try:
        return Plan.from_json(read_json(file))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{file} is not a plan of this version of mmse ({error}): move its folder away, or '
            'give another with --results'
        ) from error
