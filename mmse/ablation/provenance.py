"""What a trial file says of where its numbers come from: packages, device, commit."""

import subprocess
from functools import cache
from pathlib import Path

import cv2

import mmse
from mmse.utils.environment import SHAPING, gpu_name, python_version, versions


def environment() -> dict[str, str]:
    """Versions and device that a trial's numbers depend on besides its config, seed and data."""
    return {
        'python': python_version(),
        **versions(SHAPING),
        'opencv': cv2.__version__,  # it draws the built-in data, and resizes all others
        'device': gpu_name() or 'CPU',
    }


@cache
def source_commit(package: Path = Path(mmse.__file__).parent) -> str | None:
    """The git commit of the package's source, with ``+changes`` if the source differs from it.

    Args:
        package: The folder of the package.

    Returns:
        None if the source is not under version control, such as in an installed wheel, or if git
        is missing.
    """
    tracked = _git(package, 'ls-files', '__init__.py')
    commit = _git(package, 'rev-parse', '--short=10', 'HEAD')
    if not tracked or not commit:
        return None
    return commit + ('+changes' if _git(package, 'status', '--porcelain', '.') else '')


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails."""
    command = ['git', '-C', str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''
