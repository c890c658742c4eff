"""The file that the name of a config stands for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

from mmse.utils.dependencies import require
from mmse.utils.errors import UserError
from mmse.utils.text import nearest

# What MMEngine's own lookup, mmengine.hub.get_config('mmse::FOLDER/NAME.py'), asks.
MODULE2PACKAGE['mmse'] = 'mmse'
# OneDL's own table of distributions names the original for `mmseg::`.
with suppress(PackageNotFoundError):
    MODULE2PACKAGE['mmseg'] = distribution('onedl-mmsegmentation').name


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


def config_path(name: str) -> str:
    """The path of a config of mmse, in the repository as in an installed wheel.

    ``Config.fromfile`` takes it, and so does a ``_base_``, with any tool that reads configs with
    MMEngine: ``_base_ = __import__('mmse').config_path('fcn_se_r50.py')``.

    Args:
        name: The config's path in the folder ``configs``.

    Raises:
        UserError: There is no such config.
    """
    return str(find_config(f'mmse::{name}'))


def own_configs() -> Path:
    """The folder of the configs of mmse: in the wheel's ``mmse/.mim``, or in the repository."""
    package = Path(__file__).parents[2]
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


def _find_installed(name: str) -> Path:
    package, _, path = name.partition('::')
    if package in ('mmdet', 'mmseg', 'mmpretrain'):
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


def _configs_in(folder: Path) -> list[str]:
    return [str(p) for p in sorted(folder.rglob('*.py')) if '_base_' not in p.parts]


# What finds a `_base_`: MMEngine's own.
_find_base = Config._get_cfg_path


@cache
def _of_package(base: str) -> tuple[str, str | None]:
    """Path and scope of a ``_base_`` in another package, for which MMEngine takes half a second."""
    found: tuple[str, str | None] = _find_base(base, '')
    return found


@contextmanager
def own_names_in_bases() -> Iterator[None]:
    """Let ``_base_`` name configs of mmse while MMEngine reads a file.

    By itself it asks for a folder in the path, looks only into a wheel's ``.mim``, and has all that
    is taken from such a base built in the scope mmse, which has none of mmdet's and mmseg's types.
    """

    def path_and_scope(base: str, file: str) -> tuple[str, str | None]:
        if base.startswith('mmse::'):
            try:
                return str(find_config(base)), None
            except UserError as error:
                raise UserError(f'{os.path.relpath(file)} inherits from {error}') from error
        if '::' in base:
            return _of_package(base)
        found: tuple[str, str | None] = _find_base(base, file)
        if not Path(found[0]).is_file():
            shipped = base.rpartition('configs/')[2]
            meant = own_configs().joinpath(shipped).is_file()
            hint = f"; for the one of mmse write _base_ = 'mmse::{shipped}'" if meant else ''
            raise UserError(
                f'{os.path.relpath(file)} inherits from {base}, but there is no {found[0]}{hint}'
            )
        return found

    Config._get_cfg_path = staticmethod(path_and_scope)
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(_find_base)
