"""Finding, reading and overriding a config, with a sentence for every mistake in it."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
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
            (``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``); see ``find_config``.
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
    """Read a config file or an installed config, and nothing else; see ``load_config``.

    Raises:
        UserError: The file does not exist or does not parse, or the package that it is for is
            not installed.
    """
    cfg = read_file(name)
    if (scope := cfg.get('default_scope')) in ('mmdet', 'mmseg'):
        require(scope, name)
    return cfg


def read_file(name: str | Path) -> Config:
    """Read a config of any kind, by its name; see ``find_config``.

    Wherever in its inheritance ``_base_`` names a config ``mmse::path``, that is found as well.

    Raises:
        UserError: The file, or one that it inherits from, does not exist or does not parse.
    """
    path = find_config(name)
    try:
        with TemporaryDirectory() as folder:
            plain = _with_plain_bases(path, Path(folder))
            cfg = Config.fromfile(plain)
        if plain == path:
            return cfg
        return Config(cfg.to_dict(), filename=str(path), env_variables=cfg.env_variables)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f'{name} inherits from a package that is not there: {error}') from error
    except Exception as error:  # a config is the user's Python: anything can go wrong in it
        raise UserError(f'{name} could not be read: {type(error).__name__}: {error}') from error


def find_config(name: str | Path) -> Path:
    """The file that the name of a config stands for.

    Args:
        name: A path, or ``package::path`` of a config that an installed package has. A path that
            begins with ``configs/`` and is not in the working directory stands for a config of
            mmse, if there is one.

    Raises:
        UserError: There is no such file.
    """
    if '::' in str(name):
        return _find_installed(str(name))
    path = Path(name)
    if path.is_file():
        return path
    folder = path.parent if path.parent.is_dir() else Path('configs')
    there = _configs_in(folder)
    if path.parts[:1] == ('configs',):
        shipped = own_configs()
        if (file := shipped.joinpath(*path.parts[1:])).is_file():
            return file
        there = there or _names_of('mmse', shipped)
    raise UserError(f'{name}: no such config{nearest(str(name), there)}')


def own_configs() -> Path:
    """The folder of the configs of mmse: in the wheel's ``mmse/.mim``, or in the repository."""
    package = Path(__file__).parents[1]
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def _find_installed(name: str) -> Path:
    package, _, path = name.partition('::')
    if package in ('mmdet', 'mmseg'):
        require(package, name)
    if package not in MODULE2PACKAGE or find_spec(package) is None or not path:
        raise UserError(
            f'{name}: no such config; write mmdet::PATH or mmseg::PATH for one that is installed '
            'with mmdet or mmsegmentation, and mmse::PATH for one of mmse'
        )
    if package == 'mmse':
        folder = own_configs()
    else:
        folder = Path(get_installed_path(MODULE2PACKAGE[package]), '.mim/configs')
    if (folder / path).is_file():
        return folder / path
    near = nearest(name, _names_of(package, folder))
    raise UserError(f'{name}: no such config in the installed package{near}')


def _names_of(package: str, folder: Path) -> list[str]:
    return [f'{package}::{Path(path).relative_to(folder)}' for path in _configs_in(folder)]


def _with_plain_bases(path: Path, folder: Path) -> Path:
    """The config itself, or a copy in which paths stand for the configs of mmse it inherits from.

    MMEngine takes ``mmse::path`` only if there is a folder in the path, looks only into a wheel's
    ``.mim``, and has all that is taken from such a base built in the scope mmse, which has none of
    mmdet's and mmseg's types. Paths it takes as they are.

    Args:
        path: The config.
        folder: Where copies go.

    Raises:
        UserError: It inherits from a config that mmse does not have.
    """
    if path.suffix != '.py':
        return path
    here = path.absolute().parent
    text = path.read_text(encoding='utf-8')
    # MMEngine would put the folder of the copy there.
    text = re.sub(r'\{\{\s*fileDirname\s*\}\}', lambda _: here.as_posix(), text)
    try:
        bases = _bases(text)
    except (SyntaxError, ValueError):
        return path  # for MMEngine to read, or to tell what is wrong
    plain = [_plain_base(name, path, folder) for name in bases]
    if plain == [name if '::' in name else str(here / name) for name in bases]:
        return path
    copy = Path(mkdtemp(dir=folder), path.name)
    # Of several assignments to _base_ MMEngine takes the first and skips the others.
    copy.write_text(f'_base_ = {plain}\n{text}', encoding='utf-8')
    return copy


def _bases(text: str) -> list[str]:
    """The names that a config's source assigns to ``_base_``."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            names = ast.literal_eval(node.value)
            return names if isinstance(names, list) else [names]
    return []


def _plain_base(name: str, path: Path, folder: Path) -> str:
    """One base of a config as a path, unless it is another package's."""
    if name.startswith('mmse::'):
        try:
            return str(find_config(name))
        except UserError as error:
            raise UserError(f'{path} inherits from {error}') from error
    if '::' in name:
        return name
    base = path.absolute().parent / name
    return str(_with_plain_bases(base, folder) if base.is_file() else base)


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
