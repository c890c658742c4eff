"""Fixtures of the tests of training: a plugin, so that they are made once for all files."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from support.engine import CONFIGS, TINY, TINY_FASTER_RCNN, TINY_FCN, shapes_at

from mmse.engine.cli import exit_with_one_sentence


@pytest.fixture(scope='session')
def tiny_configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny forms of two shipped configs, each in one file, on the same built-in data."""
    folder = tmp_path_factory.mktemp('tiny')
    files = {}
    for kind, name, model in (
        ('det', 'faster_rcnn_se_r50', TINY_FASTER_RCNN),
        ('seg', 'fcn_se_r50', TINY_FCN),
    ):
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        cfg.merge_from_dict({**TINY, **model, **shapes_at(folder / 'shapes', kind == 'det')})
        files[kind] = folder / f'{name}.py'
        cfg.dump(files[kind])
    return files


@pytest.fixture
def no_env_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine's environment report asks compilers for their versions, for a second."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger of an earlier test writes to a stream that pytest has closed."""
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())


@pytest.fixture
def empty_folder(tmp_path: Path, fresh_logger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, and no process that launched this one."""
    (tmp_path / 'cwd').mkdir()
    monkeypatch.chdir(tmp_path / 'cwd')
    for name in ('RANK', 'LOCAL_RANK', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob('*')}


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command line that has to be refused; returns its sentence."""

    def sentence_of(command: Callable[[argparse.Namespace], None], args: Any) -> str:
        before = files(tmp_path)
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            exit_with_one_sentence(lambda: command(args))
        assert caught.value.code == 2
        out, err = capfd.readouterr()
        assert 'Traceback' not in out + err
        (sentence,) = err.splitlines()
        assert sentence.startswith('error: ')
        assert files(tmp_path) == before
        return sentence

    return sentence_of
