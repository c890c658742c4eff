"""The plain networks that the trials of a study start from, where it pretrains them itself."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from mmse.ablation.engines import Engine, until_ended
from mmse.ablation.folders import freeze
from mmse.ablation.initial_weights import RECORD, read_pretrained
from mmse.ablation.variants import Trial
from mmse.checkpoints.latest import latest_checkpoint
from mmse.models.loading import check_whole, match
from mmse.utils.errors import UserError


def check_fit(plain: nn.Module, model: nn.Module, base: str) -> None:
    """Refuse to pretrain a backbone whose weights the arms cannot use.

    Args:
        plain: The model that is pretrained.
        model: The model of an arm.
        base: What the config of the pretraining is called.

    Raises:
        UserError: A weight has another shape, or is missing.
    """
    backbone: Any = model.backbone
    weights: Any = plain.backbone
    try:
        check_whole(backbone, *match(backbone, weights.state_dict()))
    except UserError as error:
        raise UserError(f'pretraining, {base}: {error}') from error


def pretrain(trials: Iterable[Trial], work: Path, engine: Engine) -> None:
    """Train the plain networks that trials start from, those that have not been trained yet.

    Each stays in a working folder of its own, with its record, for as long as the folder does.

    Args:
        trials: The trials that are to run.
        work: The folder of the working folders.
        engine: Runs working folders; see ``mmse.ablation.engines``.

    Raises:
        UserError: A training failed.
    """
    waiting = {}
    for trial in trials:
        before = trial.pretraining
        if before is not None and read_pretrained(folder := work / before.id) is None:
            waiting[folder] = before
    for folder, trial in waiting.items():
        if latest_checkpoint(folder) is None:
            (folder / RECORD).unlink(missing_ok=True)  # its weights have been removed
        freeze(trial, folder, folder / RECORD, keep_checkpoints=True)
    for folder, code in until_ended(engine, list(waiting)):
        there = read_pretrained(folder)
        if there is None:
            raise UserError(
                f'the pretraining {folder} ended with exit code {code}; its log.txt says why'
            )
        metric = waiting[folder].variant.task.metric
        print(f'{folder.name}: {metric} {there.metrics[metric]:.4f}', flush=True)
