"""A classifier of mmpretrain with our backbone on the built-in data, through tools/train.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmse.engine.config.read import read_config
from mmse.utils.errors import UserError

ROOT = Path(__file__).parents[2]
TRAIN = """
import runpy, sys
from mmse.benchmark.peers import import_peers
import_peers()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
TINY = {'num_train': 16, 'num_val': 12}


def test_without_mmpretrain() -> None:
    name = str(ROOT / 'configs/classification/resnet_se_r18.py')
    message = r"mmpretrain>=1\.0,<2 is needed for .*, but it is not installed: run pip install 'mm"
    with pytest.raises(UserError, match=message):
        read_config(name)


@pytest.mark.slow
def test_a_tiny_training(tmp_path: Path) -> None:
    """On crowded scenes; it is measured, and resumed where it stopped."""

    def train(iterations: int, *arguments: str) -> None:
        options = [f'train_cfg.max_iters={iterations}']
        options += [
            f'{split}_dataloader.dataset.shapes.{key}={value}'
            for split in ('train', 'val')
            for key, value in TINY.items()
        ]
        options += ['train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
        config = ROOT / 'configs/classification/resnet_se_r18_crowded.py'
        command = [sys.executable, '-c', TRAIN, ROOT / 'tools/train.py', config, *arguments]
        command += [
            '--work-dir',
            'work',
            '--cfg-options',
            *options,
            'train_dataloader.batch_size=4',
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert 'Training is done' in done.stdout + done.stderr
        assert 'cannot be drawn' not in done.stdout + done.stderr

    train(2)
    train(4, '--resume')
    scalars = [
        json.loads(line)
        for file in sorted((tmp_path / 'work').glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    measured = {line['step']: line['accuracy/top1'] for line in scalars if 'accuracy/top1' in line}
    assert sorted(measured) == [2, 4]
    # Of 12 pictures some are right, in steps of a twelfth.
    assert all(
        value * 12 / 100 == pytest.approx(round(value * 12 / 100)) for value in measured.values()
    )
    assert (tmp_path / 'data/shapes_cls_crowded_64/train.txt').read_text().count('.jpg') == 16
