"""Where a study and its trials live, and what a trial's process finds there."""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.records import TrialHead
from mmse.ablation.trial import Assignment
from mmse.ablation.variants import Trial
from mmse.utils.files import write_text


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


def head_of(trial: Trial) -> TrialHead:
    """What the file of a trial begins with."""
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
    """Write the config that the trial's process reads; one that runs is left alone.

    A pretraining has its own working folder beside that of the trial.
    """
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
        head=head_of(trial),
        record=str(record.resolve()),
        metric=trial.variant.task.metric,
        start=trial.variant.start,
        keep_checkpoints=keep_checkpoints,
        pretraining=str(folder.parent / trial.pretraining.id) if trial.pretraining else None,
    )
    cfg.ablation = asdict(assignment)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'config.py', cfg.pretty_text)  # whole, also beside another run's
