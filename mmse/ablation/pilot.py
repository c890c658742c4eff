"""Two trials before a study: is the plain network worth comparing, and does the attention act?

The size of the trials may be chosen by the metric of the plain arm, by the dose of one arm with
attention, and by whether anything hangs on that attention. Nothing else is kept: the metric of the
arm with attention is never written down.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mmse.ablation.backbones import resolved_attention
from mmse.ablation.engines import run_locally, until_ended
from mmse.ablation.failure import LOG
from mmse.ablation.folders import Folders, freeze
from mmse.ablation.initial_weights import read_pretrained
from mmse.ablation.pretraining import freeze_pretrainings
from mmse.ablation.questions import is_hardly
from mmse.ablation.records import FinishedTrial, read_trial
from mmse.ablation.study import Study
from mmse.ablation.tasks import Task
from mmse.ablation.variants import Trial, Variant, trials_of
from mmse.utils.errors import UserError
from mmse.utils.files import read_json, write_json

SEED = 10_000  # of no study that compares arms
one_at_a_time = partial(run_locally, workers=1)


@dataclass(frozen=True)
class Pilot:
    """What the pilot of a task measured.

    Args:
        plain: Recipe of the plain arm.
        curve: (Iteration, metric) of each of its validations.
        arm: Name of the arm with attention.
        attention: Recipe of that arm.
        dose_curve: As in ``FinishedTrial``.
        dose: Its dose at the end by block.
        owes: Whether anything hangs on its attention: with the attention of the start, its metric
            is another by more than a third of the smallest effect. None if it has none there, and
            in pilots of before.
    """

    plain: str
    curve: Sequence[Sequence[float]]
    arm: str
    attention: str
    dose_curve: Sequence[Sequence[float]]
    dose: Mapping[str, Mapping[str, float]]
    owes: bool | None = None


def arms_of(study: Study, variants: Sequence[Variant], task: str) -> tuple[Variant, Variant]:
    """The plain arm of a task, and the arm with attention whose dose is measured.

    Raises:
        UserError: The study has no arm without attention, or none with it.
    """
    own = [variant for variant in variants if variant.task.name == task]
    plain = [v for v in own if not _has_attention(v)]
    attended = [v for v in own if _has_attention(v) and study.pilot in (None, v.arm.name)]
    if not plain or not attended:
        missing = 'without attention' if not plain else 'with attention'
        named = f': {study.pilot} is none' if study.pilot and plain else ''
        raise UserError(f'a pilot needs an arm {missing}{named or ", and there is none"}')
    return plain[0], attended[0]


def run_pilot(study: Study, variants: Sequence[Variant], folders: Folders) -> None:
    """Train both arms of every task once, and write ``pilot.json`` into the folder of results.

    Args:
        study: The study.
        variants: Its arms on its tasks, resolved.
        folders: Where results and working folders are.

    Raises:
        UserError: A trial failed, or the study has no arms for a pilot.
    """
    file = folders.results / 'pilot.json'
    found = read_json(file) if file.is_file() else {}
    for task in study.tasks:
        pair = arms_of(study, variants, task.name)
        with TemporaryDirectory() as records:
            trials = trials_of(pair, [SEED])
            before = freeze_pretrainings(trials, folders.work, retry_failed=True)
            for folder, code in until_ended(one_at_a_time, list(before)):
                if read_pretrained(folder) is None:
                    raise _ended_badly('pretraining', folder, code)
            plain, attended = (_train(trial, folders, Path(records)) for trial in trials)
        if attended.dose is None:
            raise UserError(f'{attended.arm} is compiled: its dose cannot be recorded')
        found[task.name] = asdict(
            Pilot(
                plain.recipe,
                plain.curves[task.metric],
                attended.arm,
                attended.recipe,
                attended.dose_curve,
                attended.dose,
                _owes(attended, task),
            )
        )
        write_json(file, found)


def read_pilot(results: Path, study: Study, variants: Sequence[Variant], task: str) -> Pilot | None:
    """What a pilot of these arms, as they are configured now, has measured; None without one."""
    file = results / 'pilot.json'
    raw = read_json(file).get(task) if file.is_file() else None
    if raw is None:
        return None
    pilot = Pilot(**raw)
    plain, attended = arms_of(study, variants, task)
    return pilot if (pilot.plain, pilot.attention) == (plain.recipe, attended.recipe) else None


def _train(trial: Trial, folders: Folders, records: Path) -> FinishedTrial:
    folder = folders.work / f'pilot-{trial.id}'
    record = records / f'{trial.id}.json'
    freeze(trial, folder, record, keep_checkpoints=False)
    ((_, code),) = one_at_a_time([folder])
    done = read_trial(record)
    if not isinstance(done, FinishedTrial):
        raise _ended_badly('pilot', folder, code)
    shutil.rmtree(folder)  # its log tells the metric of the arm on trial
    return done


def _owes(attended: FinishedTrial, task: Task) -> bool | None:
    without = attended.knock_out['start'].get(task.metric)
    if without is None:
        return None
    return not is_hardly(attended.metrics[task.metric] - without, task.smallest_effect)


def _ended_badly(what: str, folder: Path, code: int) -> UserError:
    return UserError(f'the {what} {folder} ended with exit code {code}; its {LOG} says why')


def _has_attention(variant: Variant) -> bool:
    backbones = resolved_attention(variant.cfg)
    return any(block for stages in backbones for blocks in stages for block in blocks)
