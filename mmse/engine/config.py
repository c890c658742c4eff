"""Finding, reading and overriding a config, with a sentence for every mistake in it."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.utils import get_installed_path

from mmse.dependencies import require
from mmse.engine.own_data import apply_own_data
from mmse.errors import UserError
from mmse.swap import parse_attention, swap_backbone

# OneDL's own table of distributions names the original for `mmseg::`.
with suppress(PackageNotFoundError):
    MODULE2PACKAGE['mmseg'] = distribution('onedl-mmsegmentation').name

# Top-level keys that mean something to the Runner or to these tools.
MEANINGFUL = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'auto_scale_lr',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'launcher',
    'model_wrapper_cfg',
    'own_data',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def load_config(
    name: str, overrides: Mapping[str, Any] | None = None, attention: str | None = None
) -> Config:
    """Read a config file, apply overrides, and fit it to the user's own data.

    Args:
        name: Path of a config file, or ``package::path`` of one in an installed package
            (``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``).
        overrides: Dotted keys with their new values, as ``--cfg-options`` gives them.
        attention: What every backbone of the ResNet family gets, as ``--attention`` gives it.

    Raises:
        UserError: The file does not exist or does not parse, an override changes nothing, or there
            is no backbone for the attention.
    """
    cfg = read_config(name)
    if attention is not None:
        changes = swap_backbone(cfg, parse_attention(attention))
        print_log('\n  '.join([f'--attention {attention}:', *changes]), 'current')
    override(cfg, overrides or {}, name)
    return cfg


def override(cfg: Config, overrides: Mapping[str, Any], name: str) -> None:
    """Apply overrides to a config as it was read, then fit it to the user's own data.

    Args:
        cfg: The config; changed in place.
        overrides: Dotted keys with their new values.
        name: What the config is called in errors.

    Raises:
        UserError: An override changes nothing or does not fit.
    """
    if overrides:
        _check_overrides(cfg, overrides)
        _open_presets(cfg, overrides)
        try:
            # MMEngine replaces the entries of a list only by dicts.
            entries = {k for k in overrides if isinstance(_get(cfg, k.rpartition('.')[0]), list)}
            cfg.merge_from_dict({k: _whole(k, v) for k, v in overrides.items() if k not in entries})
            for key in entries:
                _assign(cfg, key, overrides[key])
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
            raise UserError(f'--cfg-options do not fit {name}: {error}') from error
    apply_own_data(cfg)


def read_config(name: str) -> Config:
    """Read a config file or an installed config, and nothing else; see :func:`load_config`.

    Raises:
        UserError: The file does not exist or does not parse, or the package that it is for is
            not installed.
    """
    cfg = _read(name)
    if (scope := cfg.get('default_scope')) in ('mmdet', 'mmseg'):
        require(scope, name)
    return cfg


def _read(name: str) -> Config:
    if '::' in name:
        return _read_installed(name)
    path = Path(name)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path('configs')
        raise UserError(f'{name}: no such config{nearest(name, _configs_in(folder))}')
    try:
        return Config.fromfile(path)
    except ModuleNotFoundError as error:
        raise UserError(f'{name} inherits from a package that is not there: {error}') from error
    except Exception as error:  # a config is the user's Python: anything can go wrong in it
        raise UserError(f'{name} could not be read: {type(error).__name__}: {error}') from error


def _read_installed(name: str) -> Config:
    package, _, path = name.partition('::')
    if package in ('mmdet', 'mmseg'):
        require(package, name)
    if package not in MODULE2PACKAGE or find_spec(package) is None or not path:
        raise UserError(
            f'{name}: no such config; write mmdet::PATH or mmseg::PATH for one that is installed '
            'with mmdet or mmsegmentation'
        )
    folder = Path(get_installed_path(MODULE2PACKAGE[package]), '.mim/configs')
    try:
        # MMEngine's lookup does not know folders such as gn+ws.
        return Config.fromfile(folder / path) if (folder / path).is_file() else get_config(name)
    except (FileNotFoundError, ValueError) as error:
        there = [f'{package}::{Path(p).relative_to(folder)}' for p in _configs_in(folder)]
        near = nearest(name, there)
        raise UserError(f'{name}: no such config in the installed package{near}') from error


def _configs_in(folder: Path) -> list[str]:
    return [str(p) for p in sorted(folder.rglob('*.py')) if '_base_' not in p.parts]


def nearest(name: str, there: list[str]) -> str:
    """The end of a sentence about a name that does not exist: which one may be meant."""
    if near := difflib.get_close_matches(name, there, n=1):
        return f'; did you mean {near[0]}?'
    return f'; there are {", ".join(there[:8])}' if there else ''


def _check_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Refuse to override a variable of the file, which is already built into other keys."""
    for key in overrides:
        head = key.split('.')[0]
        if head in MEANINGFUL:
            continue
        places = [place for place, _ in walk(cfg) if place.endswith(f'.{key}')]
        hint = f': override {" or ".join(places[:3])}' if places else ''
        if near := difflib.get_close_matches(head, MEANINGFUL & set(cfg), n=1):
            hint = hint or f'; did you mean {near[0]}?'
        raise UserError(
            f'--cfg-options {key}=... changes nothing: {head} is '
            + ('a variable of the config file, used while it is read' if head in cfg else 'no key')
            + hint
        )


def _whole(key: str, value: Any) -> Any:
    """An attention replaces the one that is there; MMEngine would merge the two."""
    if key.rpartition('.')[2] == 'attention' and isinstance(value, Mapping):
        return {**value, '_delete_': True}
    return value


def _open_presets(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Where a key of an attention is overridden that names a preset, make that preset a dict."""
    for key in overrides:
        # The attention of the backbone, of one stage or of one block.
        match = re.fullmatch(r'((.*\.)?attention(?:\.\d+)*)\.[a-z]\w*', key)
        if match and isinstance(preset := _get(cfg, match[1]), str):
            _assign(cfg, match[1], ConfigDict(preset=preset))


def _get(cfg: Config, place: str) -> Any:
    return dict(walk(cfg)).get(place)


def _assign(cfg: Config, place: str, value: Any) -> None:
    parent, _, key = place.rpartition('.')
    node = _get(cfg, parent)
    node[int(key) if isinstance(node, list) else key] = value


def walk(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists with its dotted place, outermost first."""
    items: Iterator[tuple[Any, Any]] | Any
    if isinstance(node, Mapping | Config):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        return
    for key, value in items:
        here = f'{place}.{key}' if place else str(key)
        yield here, value
        yield from walk(value, here)
