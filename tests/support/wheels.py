"""Building distributions of the working tree elsewhere."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    """The two files that a release has, and the sources they were made from.

    Args:
        sdist: The source distribution.
        wheel: The wheel, built from the unpacked source distribution as ``pip install`` does.
        unpacked: The folder of the unpacked source distribution.
    """

    sdist: Path
    wheel: Path
    unpacked: Path


def build(kind: str, source: Path, out: Path, settings: dict[str, str] | None = None) -> None:
    """Build an sdist, a wheel or an editable wheel of a source folder, as a front end does."""
    code = f'import setuptools.build_meta as b; b.build_{kind}({str(out)!r}, {settings!r})'
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)


def copy_sources(folder: Path) -> None:
    """What of the repository a distribution is made from."""
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('mmse', 'requirements', 'configs', 'tools'):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml'):
        shutil.copy(ROOT / name, folder)
    for name in ('LICENSE', 'CHANGELOG.md', 'README.md'):
        shutil.copy(ROOT / name, folder)
