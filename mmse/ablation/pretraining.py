"""The plain networks that the trials of a study start from, where it pretrains them itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mmse.ablation.folders import freeze
from mmse.ablation.initial_weights import RECORD, read_pretrained
from mmse.ablation.records import FailedTrial, FinishedTrial, read_trial
from mmse.ablation.variants import Trial
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


def freeze_pretrainings(
    trials: Iterable[Trial], work: Path, retry_failed: bool
) -> dict[Path, Trial]:
    """Write the configs of the trainings that trials start from, those that have not ended yet.

    Each has a working folder of its own, and stays there with its record.

    Args:
        trials: The trials that are to run.
        work: The folder of the working folders.
        retry_failed: Run those again that have failed.

    Returns:
        The trainings by their working folders.
    """
    missing = {}
    for trial in trials:
        before = trial.pretraining
        if before is not None and read_pretrained(folder := work / before.id) is None:
            missing[folder] = before
    for folder, trial in missing.items():
        weights_removed = isinstance(read_trial(folder / RECORD), FinishedTrial)
        if weights_removed or retry_failed:
            (folder / RECORD).unlink(missing_ok=True)
        freeze(trial, folder, folder / RECORD, keep_checkpoints=True)
    return missing


def in_order(waiting: Mapping[Path, Trial], missing: Mapping[Path, Trial]) -> list[Path]:
    """Working folders in the order to start them: a pretraining before the first that needs it.

    A trial whose pretraining has not ended by then lets the next one go first.

    Args:
        waiting: The trials that are to run, by their working folders.
        missing: What ``freeze_pretrainings`` gave.
    """
    order: dict[Path, None] = {}
    for folder, trial in waiting.items():
        if trial.pretraining is not None:
            order |= {f: None for f, t in missing.items() if t.id == trial.pretraining.id}
        order[folder] = None
    return list(order)


def tell_pretraining(folder: Path, trial: Trial, record: FinishedTrial | FailedTrial) -> None:
    """Say how a pretraining has ended.

    Args:
        folder: Its working folder.
        trial: The pretraining.
        record: What it left.
    """
    if isinstance(record, FailedTrial):
        last = (record.last_lines or [''])[-1].strip()
        print(
            f'{folder}: FAILED ({record.reason}): {last}; the trials that start from it fail too',
            flush=True,
        )
    else:
        metric = trial.variant.task.metric
        print(f'{folder.name}: {metric} {record.metrics[metric]:.4f}', flush=True)
