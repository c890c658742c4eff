"""The distributions of the package and an installed wheel: a plugin, made once for all files."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.wheels import Built, build, copy_sources


@pytest.fixture(scope='session')
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The distributions of the working tree."""
    work = tmp_path_factory.mktemp('build')
    copy_sources(work / 'source')
    build('sdist', work / 'source', work / 'dist')
    [sdist] = (work / 'dist').glob('mmse-*.tar.gz')
    with tarfile.open(sdist) as tar:
        tar.extractall(work / 'unpacked', filter='data')
    [unpacked] = (work / 'unpacked').iterdir()
    build('wheel', unpacked, work / 'dist')
    [wheel] = (work / 'dist').glob('*.whl')
    return Built(sdist, wheel, unpacked)


@pytest.fixture(scope='session')
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index', '--target']
    subprocess.run([*command, folder, built.wheel], check=True, capture_output=True)
    return folder


@pytest.fixture
def python(site: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in an empty folder, with the installed wheel in place of the repository."""
    # Coverage is of the repository's files, not of these.
    env = {k: v for k, v in os.environ.items() if not k.startswith('COV')}
    env.update(PYTHONPATH=str(site), OMP_NUM_THREADS='1')

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run
