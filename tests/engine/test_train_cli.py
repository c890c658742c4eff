"""What a training leaves behind: metrics, a checkpoint, pictures; and that testing agrees."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.engine import CONFIGS, IN_PROCESS, args_for_test, args_for_train, read_scalars
from support.pictures import edge, enlarged, pairs_of
from support.processes import run_script

from mmse.datasets.shapes import SEG_PALETTE
from mmse.engine import run

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('fresh_logger')

SIDE = 7 * 64  # pixels: images of 64 are enlarged to 400 or more


def log_of(work_dir: Path) -> str:
    (file,) = work_dir.glob('*/*.log')
    return file.read_text()


def table_after(heading: str, log: str) -> dict[str, str]:
    """The metrics that a run ends with, as they are written."""
    lines = log[log.index(heading) :].splitlines()[1:]
    rows = [re.fullmatch(r'  (\S+) +(\S+)', line) for line in lines]
    return {row[1]: row[2] for row in rows if row}


@pytest.mark.slow
def test_detector_from_training_to_testing(
    tiny_configs: dict[str, Path], tmp_path: Path, no_env_report: None
) -> None:
    config, work_dir = tiny_configs['det'], tmp_path / 'train'
    run.train(args_for_train(config, work_dir, cfg_options=IN_PROCESS))
    log = log_of(work_dir)
    metrics = table_after('Training is done.', log)
    scores = [line for line in read_scalars(work_dir) if 'coco/bbox_mAP' in line]
    assert [line.pop('step') for line in scores] == [4, 8]
    assert metrics == {key: f'{value:.4f}' for key, value in scores[-1].items()}
    assert len(metrics) == 6
    checkpoint = work_dir / 'iter_8.pth'
    picture = work_dir / 'predictions.png'
    assert f'\ncheckpoint: {checkpoint}\n' in log and checkpoint.is_file()
    assert f'ground truth (left) and predictions (right): {picture}' in log
    assert sorted(p.name for p in work_dir.glob('*.p*')) == [
        'faster_rcnn_se_r50.py',
        'iter_6.pth',
        'iter_8.pth',
        'predictions.png',
    ]

    # The left halves show the boxes of the annotation file.
    pairs = pairs_of(cv2.imread(str(picture)), 4, (SIDE, 2 * SIDE))
    root = config.parent / 'shapes'
    content = json.loads((root / 'annotations' / 'instances_val.json').read_text())
    for image, pair in zip(content['images'], pairs, strict=True):
        photo, factor = enlarged(cv2.imread(str(root / 'val' / image['file_name'])))
        moved = {
            half: np.abs(drawn.astype(int) - photo).max(axis=2)
            for half, drawn in (('left', pair[:, :SIDE]), ('right', pair[:, SIDE:]))
        }
        boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
        on_edges = np.zeros((SIDE, SIDE), bool)
        for x, y, w, h in boxes:
            corners = (factor * int(value) for value in (x, y, x + w, y + h))
            on_edges[edge(tuple(min(corner, SIDE - 1) for corner in corners))] = True
        assert (moved['left'][on_edges] > 8).mean() > 0.8
        # Eight iterations do not make a box that is 40% sure. matplotlib before 3.11 blurs what it
        # shows, but by less than a box changes it.
        assert moved['right'].max() < 48 < moved['left'].max()

    show_dir = tmp_path / 'shown'
    tested = tmp_path / 'test'
    run.test(
        args_for_test(config, checkpoint, tested, show_dir=str(show_dir), cfg_options=IN_PROCESS)
    )
    assert table_after('Testing is done.', log_of(tested)) == metrics
    shown = sorted(show_dir.iterdir())
    assert [p.name for p in shown] == [f'{i:06d}.png' for i in range(4)]
    for file, pair in zip(shown, pairs, strict=True):
        assert np.array_equal(cv2.imread(str(file)), pair)


@pytest.mark.slow
def test_segmenter_from_the_command_line(tiny_configs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_configs['seg']

    def call(tool: str, *arguments: str | Path) -> str:
        done = run_script(CONFIGS.parent / 'tools' / tool, config, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, '')
        return done.stdout

    out = call('train.py')
    work_dir = tmp_path / 'work_dirs' / 'fcn_se_r50'
    assert f'\ncheckpoint: {work_dir}/iter_8.pth\n' in out
    assert re.search(r'Iter\(train\) \[5/8\].* eta: 0:00:0', out)
    metrics = table_after('Training is done.', out)
    assert list(metrics) == ['aAcc', 'mIoU', 'mAcc']
    scores = read_scalars(work_dir)[-1]
    assert metrics == {key: f'{scores[key]:.4f}' for key in metrics}

    tested = call('test.py', work_dir / 'iter_8.pth', '--work-dir', 'tested', '--show-dir', 'shown')
    assert table_after('Testing is done.', tested) == metrics
    assert 'predictions (right): shown' in tested
    sheet = cv2.imread(str(work_dir / 'predictions.png'))
    shown = sorted((tmp_path / 'shown').iterdir())
    assert [p.name for p in shown] == [f'{i:06d}.png' for i in range(4)]
    root = config.parent / 'shapes'
    palette = np.array(SEG_PALETTE)
    for file, pair in zip(shown, pairs_of(sheet, 4, (SIDE, 2 * SIDE)), strict=True):
        assert np.array_equal(cv2.imread(str(file)), pair)
        photo, factor = enlarged(cv2.imread(str(root / 'val' / f'{file.stem}.jpg'))[..., ::-1])
        labels = cv2.imread(str(root / 'semantic' / 'val' / file.name), cv2.IMREAD_UNCHANGED)
        labels = np.kron(labels, np.ones((factor, factor), int))
        expected = 0.2 * photo + 0.8 * palette[labels]
        same = np.abs(pair[:, :SIDE, ::-1] - expected).max(axis=2) <= 2
        assert same.mean() > 0.5  # class names are written over the rest
