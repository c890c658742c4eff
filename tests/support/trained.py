"""A tiny trained model of each kind, and what tools/predict.py parses."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.engine import IN_PROCESS, args_for_train, shapes_at
from support.processes import in_process

from mmse.engine import run

pytest_plugins = ('support.engine_fixtures',)


class Trained:
    """A tiny model after 8 iterations, and its data.

    Attributes:
        config: The config that the training wrote into its working folder.
        checkpoint: Its last checkpoint.
        images: The folder of validation images.
    """

    def __init__(self, config: Path, folder: Path) -> None:
        detection = config.name.startswith('faster')
        options = {**IN_PROCESS, **shapes_at(folder / 'shapes', detection)}
        if detection:  # after 8 iterations no score is high
            options['model.test_cfg.rcnn.score_thr'] = 0.0
        work_dir = folder / 'work'
        assert in_process(run.train, args_for_train(config, work_dir, cfg_options=options)) == 0
        self.config = work_dir / config.name
        self.checkpoint = work_dir / 'iter_8.pth'
        self.images = folder / 'shapes/val'


@pytest.fixture(scope='session')
def trained(
    tiny_configs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    """The trained model of a kind, ``det`` or ``seg``; trained when it is first asked for."""
    known: dict[str, Trained] = {}

    def of(kind: str) -> Trained:
        if kind not in known:
            known[kind] = Trained(tiny_configs[kind], tmp_path_factory.mktemp(kind))
        return known[kind]

    return of


def args_for_predict(
    model: Trained, out: Path, *inputs: Path | str, **changes: Any
) -> argparse.Namespace:
    """What tools/predict.py parses, with its defaults."""
    defaults: dict[str, Any] = {'attention': None, 'cfg_options': None, 'score': None}
    defaults |= {'classes': None, 'no_draw': False, 'device': 'cpu', 'batch_size': 1}
    return argparse.Namespace(
        **{**defaults, **changes},
        config=str(model.config),
        checkpoint=str(model.checkpoint),
        inputs=[str(i) for i in inputs],
        out=str(out),
    )
