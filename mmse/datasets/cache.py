"""Checks of data that went well, kept for the next start."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmse.datasets.digest import data_digest
from mmse.datasets.findings import Report
from mmse.utils.environment import SHAPING, versions
from mmse.utils.errors import UserError
from mmse.utils.files import read_json, write_json
from mmse.version import __version__

# Raised whenever a check finds more or says it otherwise.
_VERSION = 1


def cached(
    cfg: Config,
    split: str,
    metrics: Sequence[Mapping[str, Any]],
    check: Callable[[], list[Report]],
) -> list[Report]:
    """What an earlier check of the same data with the same settings found, or a new one.

    Reports lie in ``$XDG_CACHE_HOME/mmse/data_checks``, or below ``~/.cache``; a folder that cannot
    be written is no error. Faults are never kept.

    Args:
        cfg: The full config.
        split: train, val or test.
        metrics: The metrics that evaluate the split.
        check: Makes the check.

    Raises:
        UserError: As ``check`` does.
    """
    if (file := _file(cfg, split, metrics)) is None:
        return check()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return [
            Report(f'{report["summary"]} (from an earlier check)', report['warnings'])
            for report in read_json(file)
        ]
    reports = check()
    with contextlib.suppress(OSError):
        write_json(file, [asdict(report) for report in reports])
    return reports


def folder() -> Path:
    """Where the reports are."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mmse' / 'data_checks'


def _file(cfg: Config, split: str, metrics: Sequence[Mapping[str, Any]]) -> Path | None:
    """The report's file; None where the data are such that they have no digest."""
    try:
        identity = [
            data_digest(cfg, (split,)),
            cfg[f'{split}_dataloader']['dataset'],
            cfg[f'{split}_dataloader'].get('batch_size'),
            cfg.model.get('data_preprocessor'),
            cfg.get('data_preprocessor'),
            metrics,
            os.getcwd(),
            _VERSION,
            __version__,
            versions((*SHAPING, 'pillow', 'opencv-python', 'opencv-python-headless')),
        ]
        text = json.dumps(identity, sort_keys=True, default=_plain)
        return folder() / f'{hashlib.sha256(text.encode()).hexdigest()}.json'
    except (UserError, RuntimeError):  # no home folder
        return None


def _plain(value: Any) -> Any:
    """Classes and arrays of a config as JSON has them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set) and not isinstance(value, str):
        return list(value)
    return value.tolist() if hasattr(value, 'tolist') else str(value)
