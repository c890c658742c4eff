"""Data folders that are written once, whole, by one process, and never over something else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout
from mmengine.logging import print_log

from mmse.utils.errors import UserError

RECORD = 'dataset.json'


def read_record(root: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """What ``root`` says of itself.

    Args:
        root: The data folder.
        settings: What the folder is expected to be made from; compared value by value.

    Returns:
        The folder's record, or None where ``root`` is missing or an empty folder.

    Raises:
        UserError: ``root`` holds something else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    advice = 'give another folder, or delete this one if it is not needed'
    try:
        record: dict[str, dict[str, Any]] = json.loads((root / RECORD).read_text())
        found = record['settings']
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f'{root} exists and is no {settings["name"]} data set of mmse (it has no readable '
            f'{RECORD}), so nothing was written there: {advice}'
        ) from None
    if found != settings:
        keys = [k for k in {**settings, **found} if settings.get(k) != found.get(k)]
        keys = ['name'] if 'name' in keys else keys
        differences = ', '.join(f'{k} {found.get(k)} instead of {settings.get(k)}' for k in keys)
        raise UserError(f'{root} holds other data ({differences}): {advice}')
    return record


def build_once(
    root: str | Path, settings: dict[str, Any], build: Callable[[Path], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Make ``root`` hold the data that ``build`` writes, unless it does already.

    One process builds in a scratch folder beside ``root`` and renames it at the end; others wait
    at the file lock ``<root>.lock`` and find the data there. A process that dies leaves the lock
    free and at most the scratch folder, which the next one clears.

    Args:
        root: The data folder; missing, empty, or made from the same ``settings``.
        settings: JSON values that identify the data; ``name`` is required.
        build: Fills the folder that it is given and returns JSON facts to record.

    Returns:
        The record: ``settings``, and the facts under ``facts``.

    Raises:
        UserError: ``root`` holds something else or cannot be made.
    """
    root = Path(root).resolve()
    record = read_record(root, settings)
    if record is not None:
        return record
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(FileLock(f'{root}.lock'))
    except OSError as error:
        raise UserError(f'cannot make the data folder {root}: {error}') from error
    with lock:
        return read_record(root, settings) or _build(root, settings, build)


def _acquire(lock: FileLock) -> 'AcquireReturnProxy[FileLock]':
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print_log(f'Waiting for the process that holds {lock.lock_file}', logger='current')
        return lock.acquire()


def _build(
    root: Path, settings: dict[str, Any], build: Callable[[Path], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    scratch = root.with_name(f'.{root.name}.partial')
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        record = {'settings': settings, 'facts': build(scratch)}
        (scratch / RECORD).write_text(json.dumps(record, indent=1) + '\n')
        os.replace(scratch, root)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return record
