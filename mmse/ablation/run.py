"""Running the trials of a study that have not finished, and telling how far they are."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmse.ablation.engines import Ended
from mmse.ablation.fingerprint import code_fingerprint
from mmse.ablation.plan import Trial, Variant, trials_of
from mmse.ablation.records import environment, write_json, write_plan
from mmse.ablation.study import Study
from mmse.ablation.trial import BUSY, LOG
from mmse.engine.preflight import preflight

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
    """Run what of a study is not finished.

    Args:
        study: The study.
        variants: Its arms on its tasks, resolved.
        folders: Where results and working folders are.
        engine: Runs working folders and yields each with its exit code as it ends; see
            ``mmse.ablation.engines``.
        retry_failed: Take up trials again that have failed.
        keep_checkpoints: Keep the checkpoints of trials that have finished.

    Returns:
        The names of the trials that have failed, now or before.

    Raises:
        UserError: The data or a config of a task do not do.
    """
    for name in write_plan(folders.results, study, variants):
        print(f'contrast {name} was added or changed after trials had ended: it is exploratory')
    waiting: dict[Path, Trial] = {}
    failed: list[str] = []
    trials = trials_of(study, variants)
    for trial in trials:
        status = _status(folders.record(trial))
        if status == 'failed' and not retry_failed:
            failed.append(trial.id)
        elif status != 'finished':
            waiting[folders.work / trial.id] = trial
    print(f'{len(trials)} trials, {len(trials) - len(waiting) - len(failed)} finished before')
    if waiting:
        for task in study.tasks:
            preflight(_first(variants, task.name), ('train', 'val'), whole_checkpoint=False)
    for folder, trial in waiting.items():
        _freeze(trial, folder, folders.record(trial), keep_checkpoints)
    progress = _Progress(study, len(trials), len(trials) - len(waiting))
    while waiting:
        busy: dict[Path, Trial] = {}
        for folder, code in engine(list(waiting)):
            trial, record = waiting[folder], folders.record(waiting[folder])
            if code == BUSY:
                busy[folder] = trial
                continue
            if code != 0 and _status(record) != 'finished':
                _record_failure(trial, folder, record, code)
            progress.tell(json.loads(record.read_text(encoding='utf-8')))
            if _status(record) == 'failed':
                failed.append(trial.id)
        if busy:
            print(f'{len(busy)} trials are run by another process: waiting for them', flush=True)
            time.sleep(BUSY_WAIT_S)
        waiting = busy
    return failed


def _status(record: Path) -> str | None:
    return json.loads(record.read_text(encoding='utf-8'))['status'] if record.is_file() else None


def _first(variants: Sequence[Variant], task: str) -> Config:
    return copy.deepcopy(next(v.cfg for v in variants if v.task.name == task))


def _head(trial: Trial) -> dict[str, Any]:
    variant = trial.variant
    return {
        'id': trial.id,
        'task': variant.task.name,
        'arm': variant.arm.name,
        'seed': trial.seed,
        'recipe': variant.recipe,
        'code': code_fingerprint(),
    }


def _freeze(trial: Trial, folder: Path, record: Path, keep_checkpoints: bool) -> None:
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
    cfg.ablation = {
        'head': _head(trial),
        'record': str(record.resolve()),
        'metric': trial.variant.task.metric,
        'start': trial.variant.start,
        'keep_checkpoints': keep_checkpoints,
    }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / 'config.part.py'
    cfg.dump(part)
    part.replace(folder / 'config.py')


def _record_failure(trial: Trial, folder: Path, record: Path, code: int) -> None:
    """Write down that a trial has failed, and how."""
    reason = f'ended by signal {-code}' if code < 0 else f'exit code {code}'
    log = (folder / LOG).read_text(encoding='utf-8', errors='replace').splitlines()
    failure = {
        **_head(trial),
        'status': 'failed',
        'reason': reason,
        'last_lines': log[-LAST_LINES:],
        'environment': environment(),
    }
    write_json(record, failure)


class _Progress:
    """One line for each trial that ends, with the time left for the rest."""

    def __init__(self, study: Study, total: int, done: int) -> None:
        self.metrics = {task.name: task.metric for task in study.tasks}
        self.total = total
        self.done = self.before = done
        self.start = time.monotonic()

    def tell(self, record: dict[str, Any]) -> None:
        self.done += 1
        pace = (time.monotonic() - self.start) / (self.done - self.before)
        if record['status'] == 'finished':
            what = f'{record["metrics"][self.metrics[record["task"]]]:.4f}'
        else:
            what = f'FAILED ({record["reason"]}): {(record["last_lines"] or [""])[-1].strip()}'
        left = self.total - self.done
        rest = f'; about {duration(pace * left)} left' if left else ''
        name = ' '.join(filter(None, (record['task'], record['arm'], f'seed {record["seed"]}')))
        print(f'[{self.done}/{self.total}] {name}: {what}{rest}', flush=True)


def duration(seconds: float) -> str:
    """A time in words: seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'
