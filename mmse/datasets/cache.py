"""Checks of data that went well, kept for the next start."""

import contextlib
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from mmse.datasets.digest import data_digest
from mmse.datasets.findings import Report
from mmse.datasets.reading import LIBRARIES
from mmse.utils.environment import SHAPING, versions
from mmse.utils.errors import UserError
from mmse.utils.files import read_json, write_json
from mmse.version import __version__

# Raised whenever a check finds more or says it otherwise.
_VERSION = 3


def cached(
    cfg: Config,
    split: str,
    metrics: Sequence[Mapping[str, Any]],
    check: Callable[[], list[Report]],
) -> list[Report]:
    """What an earlier check of the same data with the same settings found, or a new one.

    Faults are never kept.

    Args:
        cfg: The full config.
        split: train, val or test.
        metrics: The metrics that evaluate the split.
        check: Makes the check.

    Raises:
        UserError: As ``check`` does.
    """
    try:
        identity = [
            data_digest(cfg, (split,)),
            cfg[f'{split}_dataloader']['dataset'],
            cfg[f'{split}_dataloader'].get('batch_size'),
            cfg.model.get('data_preprocessor'),
            cfg.get('data_preprocessor'),
            (cfg.model.get('backbone') or {}).get('in_channels'),
            metrics,
            _own_code(cfg[f'{split}_dataloader']['dataset']),
            os.getcwd(),
        ]
    except UserError:  # such data have no digest, and most likely a fault that the check names
        return check()
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return [
            Report(f'{kept["summary"]} (from an earlier check)', kept['warnings'], kept['images'])
            for kept in recall(identity)
        ]
    reports = check()
    remember(identity, [asdict(report) for report in reports])
    return reports


def _own_code(node: Any) -> dict[str, str]:
    """Digests of the source files of the user's own data sets, wrappers and transforms."""
    found: dict[str, str] = {}
    if isinstance(node, Mapping):
        for kind in _kinds(node.get('type')):
            if isinstance(kind, type) and kind.__module__.split('.')[0] not in LIBRARIES:
                with contextlib.suppress(TypeError, OSError):  # it has no file
                    file = inspect.getfile(kind)
                    found[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if isinstance(node, Mapping | list | tuple):
        for inner in node.values() if isinstance(node, Mapping) else node:
            found |= _own_code(inner)
    return found


def _kinds(kind: Any) -> Iterator[Any]:
    """The class of a config's ``type``, or the classes of that name in the default scope."""
    if not isinstance(kind, str):
        yield kind
        return
    for registry in (DATASETS, TRANSFORMS):
        with registry.switch_scope_and_registry(None) as of_scope:
            yield of_scope.get(kind)


def recall(identity: Any) -> Any:
    """What was found about something, by its identity.

    Raises:
        ValueError: Nothing is kept, or what is kept is damaged.
    """
    try:
        return read_json(_file(identity))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise ValueError(f'nothing is kept: {error}') from error


def remember(identity: Any, found: Any) -> None:
    """Keep what was found, as JSON; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError, RuntimeError):
        write_json(_file(identity), found)


def folder() -> Path:
    """Where the files lie: ``$XDG_CACHE_HOME/mmse/data_checks``, or below ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mmse' / 'data_checks'


def _file(identity: Any) -> Path:
    """The file of an identity, which belongs to this version of the checks and of the loaders."""
    loaders = versions((*SHAPING, 'pillow', 'opencv-python', 'opencv-python-headless'))
    text = json.dumps([identity, _VERSION, __version__, loaders], sort_keys=True, default=_plain)
    return folder() / f'{hashlib.sha256(text.encode()).hexdigest()}.json'


def _plain(value: Any) -> Any:
    """Classes and arrays of a config as JSON has them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set) and not isinstance(value, str):
        return list(value)
    return value.tolist() if hasattr(value, 'tolist') else str(value)
