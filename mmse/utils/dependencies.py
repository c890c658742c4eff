"""Which versions of torch and of the OpenMMLab packages fit, and the sentence when one does not.

These are the ranges that mmse accepts in anybody's environment; the versions that ``make setup``
installs are pinned in ``requirements/``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType

from packaging.specifiers import SpecifierSet

from mmse.utils.errors import UserError


@dataclass(frozen=True)
class Dependency:
    """One package under its import name, which two distributions may provide.

    Args:
        versions: Accepted versions; they cover both distributions.
        upstream: The original distribution.
        onedl: OneDL's fork of it with the same import name, if there is one.
        install: What ``pip install`` is given for ``upstream``; default: name and versions.
    """

    versions: str
    upstream: str
    onedl: str | None = None
    install: str | None = None


DEPENDENCIES = {
    'torch': Dependency('>=2.1,<3', 'torch'),
    'mmengine': Dependency('>=0.10.3,<1', 'mmengine', 'onedl-mmengine'),
    # mmdet and mmseg refuse mmcv 2.2, which is why the command stops below it.
    'mmcv': Dependency('>=2.0.0,<3', 'mmcv', 'onedl-mmcv', "'mmcv>=2.0.0,<2.2'"),
    'mmdet': Dependency('>=3.2,<4', 'mmdet', 'onedl-mmdetection', "'mmse[mmdet]'"),
    'mmseg': Dependency('>=1.2,<2', 'mmsegmentation', 'onedl-mmsegmentation', "'mmse[mmseg]'"),
    'mmpretrain': Dependency('>=1.0,<2', 'mmpretrain', 'onedl-mmpretrain'),
}


def check(packages: Iterable[str]) -> None:
    """Check versions without importing anything that pip has installed.

    Args:
        packages: Import names, keys of ``DEPENDENCIES``.

    Raises:
        ImportError: A package is missing, too old or too new; one sentence for each.
    """
    problems = [problem for package in packages if (problem := _problem(package, 'mmse'))]
    if problems:
        message = '\n'.join(problems)
        # MMEngine swallows an ImportError of a scope and then says only that the type is unknown.
        warnings.warn(message, stacklevel=2)
        raise ImportError(message)


def require(module: str, purpose: str) -> ModuleType:
    """Import a module that only some uses of mmse need.

    Args:
        module: A key of ``DEPENDENCIES`` or a module in it; ``'mmcv.ops'`` asks for the compiled
            ops, which mmcv-lite does not have.
        purpose: What needs it, for the message, such as ``'configs/fcn_se_r50.py'``.

    Raises:
        UserError: The package is missing, too old or too new, lacks something itself, or refuses
            what it finds beside it.
    """
    package = module.partition('.')[0]
    if problem := _problem(package, purpose):
        raise UserError(problem)
    try:
        return import_module(module)
    except (AssertionError, ImportError) as error:
        raise UserError(_import_problem(module, purpose, error)) from error


def require_torch(version: str, purpose: str) -> None:
    """Refuse what the installed torch is too old for.

    Args:
        version: The first version that fits, such as ``'2.6'``.
        purpose: What needs it, for the message.

    Raises:
        UserError: torch is older.
    """
    found = _version('torch')
    if found is None or not SpecifierSet(f'>={version}').contains(found, prereleases=True):
        raise UserError(f'{purpose} needs torch>={version}, but {_found("torch")} is installed')


def require_numpy() -> None:
    """Refuse a torch that was built for numpy 1 beside numpy 2: it can hand over no array.

    Raises:
        UserError: It names both versions, and what to type.
    """
    import torch  # here, because whether there is one is asked before

    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        raise UserError(
            f'torch {torch.__version__} does not work with numpy {metadata.version("numpy")} '
            f"({error}): pip install 'numpy<2' 'opencv-python<4.12'"
        ) from error


def _problem(package: str, purpose: str) -> str | None:
    """One sentence about a missing, too old or too new package; None if it fits."""
    dependency = DEPENDENCIES[package]
    found = _version(package)
    if found is not None and SpecifierSet(dependency.versions).contains(found, prereleases=True):
        return None
    state = 'it is not installed' if found is None else f'{_found(package)} is installed'
    return (
        f'{_distribution(package)}{dependency.versions} is needed for {purpose}, but {state}: '
        f'run {_install_command(package)}'
    )


def _import_problem(module: str, purpose: str, error: AssertionError | ImportError) -> str:
    """One sentence about a package whose version fits but which does not import."""
    package = module.partition('.')[0]
    command = _install_command(package)
    if getattr(error, 'name', None) == 'mmcv._ext':
        reason = f'{_found("mmcv")} is installed without its compiled ops'
        command = _recompile_command()
    elif isinstance(error, ModuleNotFoundError):
        reason = f'{_found(package)} needs {error.name}, which is not installed'
    elif isinstance(error, ImportError):
        reason = f'{_found(package)} fails at import ({error})'
        command = _recompile_command() if 'mmcv/_ext' in str(error) else command
    else:
        # mmdet and mmseg assert the versions of mmcv and mmengine and name the one they refuse.
        culprit = 'mmengine' if str(error).startswith('MMEngine') else 'mmcv'
        reason = f'{_found(package)} refuses {_found(culprit)}'
        command = _install_command(culprit)
    return f'{module} is needed for {purpose}, but {reason}: run {command}'


def _installed(distribution: str) -> str | None:
    """The version of a distribution that pip has installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _distribution(package: str) -> str:
    """The distribution that provides a package here, or would fit beside what is installed."""
    dependency = DEPENDENCIES[package]
    if _installed(dependency.upstream) or dependency.onedl is None:
        return dependency.upstream
    if _installed(dependency.onedl) or _installed('onedl-mmengine'):
        return dependency.onedl
    return dependency.upstream


def _version(package: str) -> str | None:
    """The installed version of a package, from pip's records if it is in them."""
    lite = ('mmcv-lite',) if package == 'mmcv' else ()
    for distribution in (_distribution(package), *lite):
        if version := _installed(distribution):
            return version
    # A source tree on PYTHONPATH is in no record.
    if find_spec(package) is None:
        return None
    found: str = import_module(package).__version__
    return found


def _found(package: str) -> str:
    """Name and version of what is installed, for the messages."""
    name = 'mmcv-lite' if package == 'mmcv' and _installed('mmcv-lite') else _distribution(package)
    return f'{name} {_version(package)}'


def _install_command(package: str, flags: str = '') -> str:
    """The command that installs a fitting version of a package."""
    dependency = DEPENDENCIES[package]
    name = _distribution(package)
    target = f"'{name}{dependency.versions}'"
    if name == dependency.upstream and dependency.install:
        target = dependency.install
    if package == 'mmcv':
        # Compiling against the installed torch is what gives ops that load.
        return (
            "pip install 'setuptools<81' wheel ninja psutil && "
            f'MMCV_WITH_OPS=1 CPPFLAGS=-g0 pip install --no-build-isolation {flags}{target}'
        )
    return f'pip install {target}'


def _recompile_command() -> str:
    """The command that replaces an mmcv whose ops are missing or fit another torch."""
    command = _install_command('mmcv', '--force-reinstall --no-deps --no-cache-dir ')
    return f'pip uninstall -y mmcv-lite && {command}' if _installed('mmcv-lite') else command
