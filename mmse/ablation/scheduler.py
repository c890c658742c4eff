"""Running the trials of a study that have not finished, and telling how far they are."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path

from mmse.ablation.engines import Engine, until_ended
from mmse.ablation.failure import failure
from mmse.ablation.folders import Folders, freeze, head_of
from mmse.ablation.initial_weights import RECORD
from mmse.ablation.plan import Plan, plan_of
from mmse.ablation.pretraining import (
    check_fit,
    freeze_pretrainings,
    in_order,
    tell_pretraining,
)
from mmse.ablation.records import (
    FailedTrial,
    FinishedTrial,
    of_other_data,
    read_trial,
    read_trials,
)
from mmse.ablation.registration import update_plan
from mmse.ablation.study import Study
from mmse.ablation.variants import Trial, Variant, trials_of
from mmse.checkpoints.safe_load import checked
from mmse.engine.preflight import preflight
from mmse.utils.text import duration


def run(
    study: Study,
    variants: Sequence[Variant],
    folders: Folders,
    engine: Engine,
    *,
    retry_failed: bool = False,
    keep_checkpoints: bool = False,
) -> list[str]:
    """Run what of a study has not finished.

    Args:
        study: The study.
        variants: Its arms on its tasks, resolved.
        folders: Where results and working folders are.
        engine: Runs working folders and yields each with its exit code as it ends; see
            ``mmse.ablation.engines``.
        retry_failed: Run trials again that have failed.
        keep_checkpoints: Keep the checkpoints of trials that have finished.

    Returns:
        The names of the trials that have failed, now or before.

    Raises:
        UserError: The data or a config of a task cannot be used.
    """
    trials = trials_of(variants, study.seeds)
    plan = update_plan(folders.results, plan_of(study, trials))
    _tell_changes(plan, folders)
    waiting: dict[Path, Trial] = {}
    failed: list[str] = []
    for trial in trials:
        before = read_trial(folders.record(trial))
        if isinstance(before, FailedTrial) and retry_failed:
            folders.record(trial).unlink(missing_ok=True)  # others may retry it as well
            before = None
        if isinstance(before, FailedTrial):
            failed.append(trial.id)
        elif before is None:
            waiting[folders.work / trial.id] = trial
    print(f'{len(trials)} trials, {len(trials) - len(waiting) - len(failed)} finished before')
    if waiting:
        for task in study.tasks:
            _check_task(next(v for v in variants if v.task.name == task.name))
        checked.clear()
    pretrainings = freeze_pretrainings(waiting.values(), folders.work, retry_failed)
    for folder, trial in waiting.items():
        freeze(trial, folder, folders.record(trial), keep_checkpoints)
    progress = _Progress(study, len(trials), len(trials) - len(waiting))
    for folder, code in until_ended(engine, in_order(waiting, pretrainings)):
        trial = pretrainings.get(folder) or waiting[folder]
        file = folder / RECORD if folder in pretrainings else folders.record(trial)
        record = read_trial(file)
        if record is None:  # it was killed
            record = failure(head_of(trial), folder, code)
            record.write(file)
        if folder in pretrainings:
            tell_pretraining(folder, trial, record)
            continue
        progress.tell(record)
        if isinstance(record, FailedTrial):
            failed.append(trial.id)
    return failed


def _check_task(first: Variant) -> None:
    """Check what the trials of a task need, by its first arm."""
    model = preflight(copy.deepcopy(first.cfg), ('train', 'val'), whole_checkpoint=False)
    if (before := first.pretraining) is not None:
        plain = preflight(copy.deepcopy(before.cfg), ('train', 'val'), whole_checkpoint=False)
        check_fit(plain.module, model.module, before.task.base)


def _tell_changes(plan: Plan, folders: Folders) -> None:
    """Say which contrasts came late, and which trials were of other data."""
    for contrast in plan.contrasts:
        if not contrast.registered:
            print(
                f'contrast {contrast.name} was added or changed after trials had ended: it is '
                'exploratory'
            )
    if old := of_other_data(plan, read_trials(folders.results)):
        print(
            f'the data have changed since these {len(old)} trials ended; their files stay in '
            f'{folders.results}/trials and no longer count:',
            *old,
            sep='\n  ',
        )


class _Progress:
    """One line for each trial that ends, with the time left for the rest."""

    def __init__(self, study: Study, total: int, done: int) -> None:
        self.metrics = {task.name: task.metric for task in study.tasks}
        self.total = total
        self.done = self.before = done
        self.began = time.monotonic()

    def tell(self, record: FinishedTrial | FailedTrial) -> None:
        self.done += 1
        pace = (time.monotonic() - self.began) / (self.done - self.before)
        if isinstance(record, FinishedTrial):
            what = f'{record.metrics[self.metrics[record.task]]:.4f}'
        else:
            what = f'FAILED ({record.reason}): {(record.last_lines or [""])[-1].strip()}'
        left = self.total - self.done
        rest = f'; about {duration(pace * left)} left' if left else ''
        name = ' '.join(filter(None, (record.task, record.arm, f'seed {record.seed}')))
        print(f'[{self.done}/{self.total}] {name}: {what}{rest}', flush=True)
