"""What a trial leaves that ended before its training did."""

from dataclasses import asdict
from pathlib import Path

from mmse.ablation.provenance import environment, source_commit
from mmse.ablation.records import FailedTrial, TrialHead
from mmse.utils.files import read_json, write_json

LOG = 'log.txt'  # of a trial's folder
DIVERGED = 3  # exit code: its loss was not finite
ENVIRONMENT = 'environment.json'
LAST_LINES = 20


def keep_environment(folder: Path) -> None:
    """Write down where a trial runs, for the case that it is killed.

    Args:
        folder: Its working folder.
    """
    write_json(folder / ENVIRONMENT, environment())


def failure(head: TrialHead, folder: Path, code: int) -> FailedTrial:
    """How a trial has failed.

    Args:
        head: Which trial it is.
        folder: Its working folder.
        code: The exit code of its process; below 0 it is that of a signal.
    """
    file = folder / ENVIRONMENT
    log = (folder / LOG).read_text(encoding='utf-8', errors='replace').splitlines()
    return FailedTrial(
        **asdict(head),
        # None where it ended before it could say: the scheduler may be on another machine.
        environment=read_json(file) if file.is_file() else {},
        commit=source_commit(),
        reason=f'ended by signal {-code}' if code < 0 else f'exit code {code}',
        last_lines=log[-LAST_LINES:],
        diverged=code == DIVERGED,
    )
