"""What a training leaves behind: metrics, a checkpoint, pictures; and that testing agrees."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from support.engine import CONFIGS, IN_PROCESS, args_for_test, args_for_train, read_scalars
from support.processes import run_script

from mmse.datasets.scenes import CLASSES, PALETTE
from mmse.datasets.shapes import SEG_CLASSES, SEG_PALETTE
from mmse.engine import run
from mmse.engine.pictures import draw_pair

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('fresh_logger')

GAP = 8


def log_of(work_dir: Path) -> str:
    (file,) = work_dir.glob('*/*.log')
    return file.read_text()


def table_after(heading: str, log: str) -> dict[str, str]:
    """The metrics that a run ends with, as they are written."""
    lines = log[log.index(heading) :].splitlines()[1:]
    rows = [re.fullmatch(r'  (\S+) +(\S+)', line) for line in lines]
    return {row[1]: row[2] for row in rows if row}


def pairs_of(sheet: np.ndarray, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """The pictures of a sheet with two columns and white gaps."""
    height, width = shape
    assert sheet.shape == (
        (count + 1) // 2 * (height + GAP) + GAP,
        2 * (width + GAP) + GAP,
        3,
    )
    corners = [(GAP + i // 2 * (height + GAP), GAP + i % 2 * (width + GAP)) for i in range(count)]
    return [sheet[y : y + height, x : x + width] for y, x in corners]


def sample_with(kind: str, **data: InstanceData | PixelData):
    if kind == 'det':
        from mmdet.structures import DetDataSample as DataSample
    else:
        from mmseg.structures import SegDataSample as DataSample
    sample = DataSample(metainfo={'img_path': data.pop('img_path')})
    for key, value in data.items():
        setattr(sample, key, value)
    return sample


def visualizer_of(kind: str):
    init_default_scope({'det': 'mmdet', 'seg': 'mmseg'}[kind])
    name = {'det': 'DetLocalVisualizer', 'seg': 'SegLocalVisualizer'}[kind]
    visualizer = VISUALIZERS.build({'type': name, 'name': f'test_{kind}'})
    meta = {'det': (CLASSES, PALETTE), 'seg': (SEG_CLASSES, SEG_PALETTE)}[kind]
    visualizer.dataset_meta = dict(zip(('classes', 'palette'), meta, strict=True))
    return visualizer


def edge(box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a box's left, right and lower edge, away from its corners."""
    x1, y1, x2, y2 = box
    rows, columns = np.arange(y1 + 3, y2 - 2), np.arange(x1 + 3, x2 - 2)
    return (
        np.concatenate([rows, rows, np.full_like(columns, y2)]),
        np.concatenate([np.full_like(rows, x1), np.full_like(rows, x2), columns]),
    )


def test_a_pair_of_boxes(tmp_path: Path) -> None:
    """Ground truth left, predictions above the threshold right, nothing else anywhere."""
    grey = np.full((160, 200, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), grey)
    truth, found, doubted = (20, 30, 80, 120), (110, 50, 180, 140), (30, 60, 90, 150)
    sample = sample_with(
        'det',
        img_path=str(tmp_path / 'photo.png'),
        gt_instances=InstanceData(bboxes=torch.tensor([truth]), labels=torch.tensor([0])),
        pred_instances=InstanceData(
            bboxes=torch.tensor([found, doubted]),
            labels=torch.tensor([3, 1]),
            scores=torch.tensor([0.41, 0.39]),
        ),
    )
    draw_pair(visualizer_of('det'), sample, tmp_path / 'pair.png')
    pair = cv2.imread(str(tmp_path / 'pair.png'))[..., ::-1].astype(int)
    assert pair.shape == (160, 400, 3)
    halves = {'left': pair[:, :200], 'right': pair[:, 200:]}
    for half, box, label in (('left', truth, 0), ('right', found, 3)):
        # mmdet draws edges with 80% of the class's colour.
        colour = 0.8 * np.array(PALETTE[label]) + 0.2 * 90
        assert np.abs(halves[half][edge(box)] - colour).max() < 12
    for half, box in (('left', found), ('left', doubted), ('right', truth), ('right', doubted)):
        others = halves[half][edge(box)]
        assert (np.abs(others - 90).max(axis=1) < 12).mean() > 0.7


def test_a_pair_of_label_maps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), photo[..., ::-1])
    truth, guess = (np.kron(rng.integers(0, 7, (3, 4)), np.ones((32, 32), int)) for _ in range(2))
    sample = sample_with(
        'seg',
        img_path=str(tmp_path / 'photo.png'),
        gt_sem_seg=PixelData(data=torch.tensor(truth)[None]),
        pred_sem_seg=PixelData(data=torch.tensor(guess)[None]),
    )
    draw_pair(visualizer_of('seg'), sample, tmp_path / 'pair.png')
    pair = cv2.imread(str(tmp_path / 'pair.png'))[..., ::-1].astype(int)
    palette = np.array(SEG_PALETTE)
    for half, labels in ((pair[:, :128], truth), (pair[:, 128:], guess)):
        expected = 0.2 * photo + 0.8 * palette[labels]
        # Class names are written over some of it.
        assert (np.abs(half - expected).max(axis=2) <= 2).mean() > 0.6
    wrong = 0.2 * photo + 0.8 * palette[guess]
    assert (np.abs(pair[:, :128] - wrong).max(axis=2) <= 2).mean() < 0.5


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
    pairs = pairs_of(cv2.imread(str(picture)), 4, (64, 128))
    root = config.parent / 'shapes'
    content = json.loads((root / 'annotations' / 'instances_val.json').read_text())
    for image, pair in zip(content['images'], pairs, strict=True):
        photo = cv2.imread(str(root / 'val' / image['file_name'])).astype(int)
        changed = {
            half: np.abs(drawn - photo).max(axis=2) > 8
            for half, drawn in (('left', pair[:, :64]), ('right', pair[:, 64:]))
        }
        boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
        on_edges = np.zeros((64, 64), bool)
        for x, y, w, h in boxes:
            on_edges[edge((int(x), int(y), int(min(x + w, 63)), int(min(y + h, 63))))] = True
        assert changed['left'][on_edges].mean() > 0.8
        # Eight iterations do not make a box that is 40% sure.
        assert not changed['right'].any()

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
    for file, pair in zip(shown, pairs_of(sheet, 4, (64, 128)), strict=True):
        assert np.array_equal(cv2.imread(str(file)), pair)
        photo = cv2.imread(str(root / 'val' / f'{file.stem}.jpg'))[..., ::-1]
        labels = cv2.imread(str(root / 'semantic' / 'val' / file.name), cv2.IMREAD_UNCHANGED)
        expected = 0.2 * photo + 0.8 * palette[labels]
        same = np.abs(pair[:, :64, ::-1] - expected).max(axis=2) <= 2
        assert same.mean() > 0.5  # class names are written over the rest
