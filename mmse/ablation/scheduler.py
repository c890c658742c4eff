"""Running the trials of a study that have not finished, and telling how far they are."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from mmse.ablation.engines import Ended
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.plan import Plan, plan_of, update_plan
from mmse.ablation.provenance import environment, source_commit
from mmse.ablation.records import (
    FailedTrial,
    FinishedTrial,
    TrialHead,
    of_other_data,
    read_trial,
    read_trials,
)
from mmse.ablation.study import Study
from mmse.ablation.trial import BUSY, DIVERGED, LOG, Assignment
from mmse.ablation.variants import Trial, Variant, trials_of
from mmse.checkpoints.safe_load import checked
from mmse.engine.preflight import preflight
from mmse.utils.files import write_text
from mmse.utils.text import duration

LAST_LINES = 20
BUSY_WAIT_S = 5


@dataclass(frozen=True)
class Folders:
    """Where a study lives.

    Args:
        results: Its plan, trial files and report, which are worth keeping.
        work: A working folder for each trial: config, log and checkpoints.
    """

    results: Path
    work: Path

    def record(self, trial: Trial) -> Path:
        """The trial's file."""
        return self.results / 'trials' / f'{trial.id}.json'


def run(
    study: Study,
    variants: Sequence[Variant],
    folders: Folders,
    engine: Callable[[Sequence[Path]], Ended],
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
        if isinstance(before, FailedTrial) and not retry_failed:
            failed.append(trial.id)
        elif not isinstance(before, FinishedTrial):
            waiting[folders.work / trial.id] = trial
    print(f'{len(trials)} trials, {len(trials) - len(waiting) - len(failed)} finished before')
    if waiting:
        for task in study.tasks:
            preflight(_first(variants, task.name), ('train', 'val'), whole_checkpoint=False)
        checked.clear()
    for folder, trial in waiting.items():
        freeze(trial, folder, folders.record(trial), keep_checkpoints)
    progress = _Progress(study, len(trials), len(trials) - len(waiting))
    while waiting:
        busy: dict[Path, Trial] = {}
        for folder, code in engine(list(waiting)):
            trial, file = waiting[folder], folders.record(waiting[folder])
            if code == BUSY:
                busy[folder] = trial
                continue
            record = read_trial(file)
            if record is None or (code != 0 and isinstance(record, FailedTrial)):
                record = _failure(trial, folder, code)
                record.write(file)
            progress.tell(record)
            if isinstance(record, FailedTrial):
                failed.append(trial.id)
        if busy:
            print(f'{len(busy)} trials are run by another process: waiting for them', flush=True)
            time.sleep(BUSY_WAIT_S)
        waiting = busy
    return failed


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


def _first(variants: Sequence[Variant], task: str) -> Config:
    return copy.deepcopy(next(v.cfg for v in variants if v.task.name == task))


def _head(trial: Trial) -> TrialHead:
    variant = trial.variant
    return TrialHead(
        id=trial.id,
        task=variant.task.name,
        arm=variant.arm.name,
        seed=trial.seed,
        recipe=variant.recipe,
        results_version=RESULTS_VERSION,
        data=trial.data,
    )


def freeze(trial: Trial, folder: Path, record: Path, keep_checkpoints: bool) -> None:
    """Write the config that the trial's process reads; one that runs is left alone."""
    cfg = copy.deepcopy(trial.variant.cfg)
    cfg.work_dir = str(folder)
    cfg.experiment_name = trial.id
    cfg.launcher = 'none'
    cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': trial.seed}
    hooks = cfg.get('custom_hooks') or []
    if not any(hook['type'] == 'mmse.IterationSeedHook' for hook in hooks):
        cfg.custom_hooks = [*hooks, {'type': 'mmse.IterationSeedHook'}]
    cfg.default_hooks = cfg.get('default_hooks') or {}
    cfg.default_hooks.checkpoint = {
        'type': 'CheckpointHook',
        **(cfg.default_hooks.get('checkpoint') or {}),
        'max_keep_ckpts': 2,  # MMEngine removes the oldest before the newest is whole
    }
    assignment = Assignment(
        head=_head(trial),
        record=str(record.resolve()),
        metric=trial.variant.task.metric,
        start=trial.variant.start,
        keep_checkpoints=keep_checkpoints,
    )
    cfg.ablation = asdict(assignment)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'config.py', cfg.pretty_text)  # whole, also beside another run's


def _failure(trial: Trial, folder: Path, code: int) -> FailedTrial:
    """How a trial has failed."""
    log = (folder / LOG).read_text(encoding='utf-8', errors='replace').splitlines()
    return FailedTrial(
        **asdict(_head(trial)),
        environment=environment(),
        commit=source_commit(),
        reason=f'ended by signal {-code}' if code < 0 else f'exit code {code}',
        last_lines=log[-LAST_LINES:],
        diverged=code == DIVERGED,
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
