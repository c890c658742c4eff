"""Finding, reading and overriding a config, with a sentence for every mistake in it."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmse.dependencies import require
from mmse.engine.own_data import apply_own_data
from mmse.errors import UserError

# Top-level keys that mean something to the Runner or to these tools.
MEANINGFUL = {
    *inspect.signature(Runner.__init__).parameters,
    'auto_scale_lr',
    'find_unused_parameters',
    'launcher',
    'model_wrapper_cfg',
    'own_data',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, apply overrides, and fit it to the user's own data.

    Args:
        name: Path of a config file, or ``package::path`` of one in an installed package
            (``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``).
        overrides: Dotted keys with their new values, as ``--cfg-options`` gives them.

    Raises:
        UserError: The file does not exist or does not parse, or an override changes nothing.
    """
    cfg = _read(name)
    if overrides:
        _check_overrides(cfg, overrides)
        try:
            cfg.merge_from_dict(dict(overrides))
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise UserError(f'--cfg-options do not fit {name}: {error}') from error
    if scope := cfg.get('default_scope'):
        if scope in ('mmdet', 'mmseg'):
            require(scope, name)
    apply_own_data(cfg)
    return cfg


def _read(name: str) -> Config:
    if '::' in name:
        package = name.split('::')[0]
        if package in ('mmdet', 'mmseg'):
            require(package, name)
        try:
            return get_config(name)
        except (FileNotFoundError, ModuleNotFoundError, ValueError, ImportError) as error:
            raise UserError(f'no config {name} in the installed packages: {error}') from error
    path = Path(name)
    if not path.is_file():
        raise UserError(f'{name}: no such config{_nearest(path)}')
    try:
        return Config.fromfile(path)
    except ModuleNotFoundError as error:
        raise UserError(f'{name} inherits from a package that is not there: {error}') from error
    except Exception as error:  # a config is the user's Python: anything can go wrong in it
        raise UserError(f'{name} could not be read: {type(error).__name__}: {error}') from error


def _nearest(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path('configs')
    there = [str(p) for p in sorted(folder.rglob('*.py')) if '_base_' not in p.parts]
    near = difflib.get_close_matches(str(path), there, n=1) or there[:8]
    return f'; did you mean {near[0]}?' if len(near) == 1 else f'; there are {", ".join(near)}'


def _check_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Refuse to override a variable of the file, which is already built into other keys."""
    for key in overrides:
        if '.' in key or key in MEANINGFUL:
            continue
        places = [place for place, value in walk(cfg) if place.endswith(f'.{key}')]
        hint = f': override {" or ".join(places[:3])}' if places else ''
        raise UserError(
            f'--cfg-options {key}=... changes nothing: {key} is '
            + ('a variable of the config file, used while it is read' if key in cfg else 'no key')
            + hint
        )


def walk(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists with its dotted place, outermost first."""
    items: Iterator[tuple[Any, Any]] | Any
    if isinstance(node, Mapping) or isinstance(node, Config):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        return
    for key, value in items:
        here = f'{place}.{key}' if place else str(key)
        yield here, value
        yield from walk(value, here)
