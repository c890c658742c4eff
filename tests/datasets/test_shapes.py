"""The built-in data: what is generated, how it is written, and that the readers agree."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock
from mmengine.registry import DATASETS as ROOT_DATASETS
from pycocotools import mask as coco_mask

from mmse.datasets import bases, folder, scenes
from mmse.datasets.scenes import CLASSES, PALETTE, draw_scene
from mmse.datasets.shapes import SEG_CLASSES, ensure_shapes
from mmse.utils.errors import UserError

SMALL = {'num_train': 12, 'num_val': 5}
SPLITS = {'train': 12, 'val': 5}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    ensure_shapes(root, **SMALL)
    return root


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative name."""
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob('*'))
        if file.is_file()
    }


def load(root: Path, split: str) -> dict:
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_text())


def in_process(root: Path, **settings: int) -> subprocess.Popen:
    code = (
        'from mmse.datasets.shapes import ensure_shapes; '
        f'ensure_shapes({str(root)!r}, **{settings})'
    )
    return subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_same_seed_gives_the_same_bytes(shapes: Path, tmp_path: Path) -> None:
    ensure_shapes(tmp_path / 'again', **SMALL)
    assert digests(tmp_path / 'again') == digests(shapes)


def test_picture_does_not_depend_on_how_many_there_are(shapes: Path, tmp_path: Path) -> None:
    ensure_shapes(tmp_path / 'fewer', num_train=7, num_val=2)
    few, many = digests(tmp_path / 'fewer'), digests(shapes)
    pictures = [name for name in few if name.endswith(('.jpg', '.png')) and '/' in name]
    assert len(pictures) == 2 * (7 + 2)
    assert all(few[name] == many[name] for name in pictures)
    first = load(tmp_path / 'fewer', 'train')['annotations']
    assert first == load(shapes, 'train')['annotations'][: len(first)]


def test_seed_and_split_change_every_picture(shapes: Path, tmp_path: Path) -> None:
    ensure_shapes(tmp_path / 'other', seed=1, **SMALL)
    names = [f'train/{k:06d}.jpg' for k in range(12)] + [f'val/{k:06d}.jpg' for k in range(5)]
    one, two = digests(shapes), digests(tmp_path / 'other')
    assert len({d[name] for d in (one, two) for name in names}) == 2 * len(names)


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_are_the_visible_masks(shapes: Path, split: str) -> None:
    content = load(shapes, split)
    assert [c['name'] for c in content['categories']] == list(CLASSES)
    assert [i['file_name'] for i in content['images']] == [
        f'{k:06d}.jpg' for k in range(SPLITS[split])
    ]
    for image in content['images']:
        picture = cv2.imread(str(shapes / split / image['file_name']))
        assert picture.shape == (image['height'], image['width'], 3) == (128, 128, 3)
        label_file = shapes / 'semantic' / split / image['file_name'].replace('jpg', 'png')
        semantic = cv2.imread(str(label_file), cv2.IMREAD_UNCHANGED)
        drawn = np.zeros((128, 128), int)
        covered = np.zeros((128, 128), int)
        own = [a for a in content['annotations'] if a['image_id'] == image['id']]
        assert own
        for annotation in own:
            rle = annotation['segmentation']
            mask = coco_mask.decode({**rle, 'counts': rle['counts'].encode()}).astype(bool)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = columns[0], rows[0]
            box = [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
            assert annotation['bbox'] == box
            assert annotation['area'] == mask.sum()
            assert annotation['iscrowd'] == 0
            drawn[mask] = annotation['category_id']
            covered += mask
        assert covered.max() == 1
        np.testing.assert_array_equal(semantic, drawn)


@pytest.fixture(scope='module')
def instances() -> list[tuple[int, int]]:
    """(label, visible area) of the objects in 300 default scenes."""
    found = []
    for k in range(300):
        scene = draw_scene(np.random.default_rng([0, 0, k]), 128)
        found += [(label, int(m.sum())) for label, m in zip(scene.labels, scene.masks, strict=True)]
    return found


def test_sizes_and_classes_are_spread(instances: list[tuple[int, int]]) -> None:
    areas = np.array([area for _, area in instances])
    small, large = (areas < 32**2).mean(), (areas >= 96**2).mean()
    assert 0.4 < small < 0.6
    assert 0.03 < large < 0.15
    assert 2.5 < len(instances) / 300 < 5
    labels = np.array([label for label, _ in instances])
    assert np.all(np.abs(np.bincount(labels) / len(labels) - 1 / 6) < 0.04)
    assert {label for label, area in instances if area >= 96**2} == set(range(6))
    assert areas.min() >= 0.45 * (0.11 * 128) ** 2


def test_colour_is_a_hint_and_no_label() -> None:
    """The class whose hue is nearest is often right, and too often wrong to do without shape."""
    right = []
    for k in range(300):
        scene = draw_scene(np.random.default_rng([0, 0, k]), 128)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            colour = scene.image[mask].mean(axis=0).astype(np.float32)[None, None] / 255
            hue = cv2.cvtColor(colour, cv2.COLOR_BGR2HSV)[0, 0, 0]
            right.append(round(hue / 60) % 6 == label)
    assert 0.6 < np.mean(right) < 0.92


def test_outlines_have_the_area_and_fill_of_their_formulas() -> None:
    """Every shape covers side^2 pixels and its part of the convex hull, at any angle."""
    fill = {
        'circle': 1,
        'square': 1,
        'triangle': 1,
        'star': 0.45 * np.sin(np.pi / 5) / (0.5 * np.sin(2 * np.pi / 5)),
        'cross': (8 * 0.3 - 4 * 0.3**2) / (4 - 2 * 0.7**2),
        'ring': 1 - 0.5**2,
    }
    for label, name in enumerate(CLASSES):
        for angle in (0.0, 0.4, 2.0):
            covered = scenes._draw_shape(256, label, np.array([128.0, 128.0]), 100.0, angle)
            assert covered.sum() == pytest.approx(100**2, rel=0.02)
            solid = (covered >= 0.5).astype(np.uint8)
            hull = np.zeros_like(solid)
            cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(solid)), 1)
            assert solid.sum() / hull.sum() == pytest.approx(fill[name], rel=0.02)


def test_other_size_is_used(tmp_path: Path) -> None:
    ensure_shapes(tmp_path / 'shapes', size=64, num_train=2, num_val=1)
    assert cv2.imread(str(tmp_path / 'shapes/train/000001.jpg')).shape == (64, 64, 3)
    assert load(tmp_path / 'shapes', 'val')['images'][0]['width'] == 64


def test_sheet_shows_the_label_map(shapes: Path) -> None:
    sheet = cv2.imread(str(shapes / 'examples.png'))
    semantic = cv2.imread(str(shapes / 'semantic/train/000000.png'), cv2.IMREAD_UNCHANGED)
    colours = np.array([(60, 60, 60), *(c[::-1] for c in PALETTE)], np.uint8)
    tile = cv2.resize(colours[semantic], (288, 288), interpolation=cv2.INTER_NEAREST)
    x, y = 12 + 288 + 6, 52
    np.testing.assert_array_equal(sheet[y : y + 288, x : x + 288], tile)
    assert sheet.shape == (52 + 4 * 300, 12 + 2 * (2 * 288 + 6 + 12), 3)


def test_second_call_writes_nothing(shapes: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in shapes.rglob('*')}
    ensure_shapes(shapes, **SMALL)
    assert {file: file.stat().st_mtime_ns for file in shapes.rglob('*')} == before


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': 31}, 'size as an integer of at least 32, got 31'),
        ({'num_train': 0}, 'num_train as an integer of at least 1, got 0'),
        ({'seed': -1}, 'seed as an integer of at least 0, got -1'),
        ({'num_val': 2.5}, 'num_val as an integer of at least 1, got 2.5'),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensure_shapes(tmp_path / 'shapes', **settings)
    assert not list(tmp_path.iterdir())


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    foreign = tmp_path / 'shapes'
    (foreign / 'train').mkdir(parents=True)
    (foreign / 'train' / 'mine.txt').write_text('precious')
    before = digests(foreign)
    with pytest.raises(UserError, match=r'is no shapes data set of mmse .* nothing was written'):
        ensure_shapes(foreign, **SMALL)
    assert digests(foreign) == before
    assert os.listdir(tmp_path) == ['shapes']


def test_other_settings_are_refused_by_name(shapes: Path) -> None:
    before = digests(shapes)
    with pytest.raises(UserError, match=r'\(num_val 5 instead of 4, seed 0 instead of 3\)'):
        ensure_shapes(shapes, num_train=12, num_val=4, seed=3)
    assert digests(shapes) == before


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'shapes').write_text('mine')
    with pytest.raises(UserError, match='exists and is no shapes data set'):
        ensure_shapes(tmp_path / 'shapes', **SMALL)
    with pytest.raises(UserError, match='cannot make the data folder'):
        ensure_shapes(tmp_path / 'shapes' / 'below', **SMALL)
    assert (tmp_path / 'shapes').read_text() == 'mine'


def test_empty_folder_is_filled(shapes: Path, tmp_path: Path) -> None:
    ensure_shapes(tmp_path, **SMALL)
    assert digests(tmp_path) == digests(shapes)


def test_failure_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmse.datasets.shapes.draw_sheet', full_disk)
    with pytest.raises(OSError, match='No space left'):
        ensure_shapes(tmp_path / 'shapes', **SMALL)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_killed_run_leaves_nothing_half_made(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / 'shapes'
    process = in_process(root, num_train=100_000)
    begun = tmp_path / '.shapes.partial' / 'train' / '000008.jpg'
    deadline = time.monotonic() + 120
    while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert begun.exists()
    assert not root.exists()
    ensure_shapes(root, **SMALL)
    assert digests(root) == digests(shapes)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ['shapes']


@pytest.mark.slow
def test_of_two_processes_one_writes(tmp_path: Path) -> None:
    root = tmp_path / 'shapes'
    settings = {'num_train': 400, 'num_val': 5}
    processes = [in_process(root, **settings) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum('Generated the built-in shapes data set' in output for output in outputs) == 1
    assert len(load(root, 'train')['images']) == 400
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ['shapes']


def test_waiting_process_finds_the_data(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another holds the lock we wait, and then take what it made."""
    root = tmp_path / 'shapes'
    lock = FileLock(f'{root}.lock')
    lock.acquire()
    waits = []

    def other_finishes(message: str, **_: object) -> None:
        waits.append(message)
        shutil.copytree(shapes, root)
        lock.release()

    monkeypatch.setattr(folder, 'print_log', other_finishes)
    ensure_shapes(root, **SMALL)
    assert len(waits) == 1
    assert 'Waiting for the process that holds' in waits[0]


def detection(root: Path, split: str, **kwargs: object) -> object:
    pytest.importorskip('mmdet')
    return ROOT_DATASETS.build(
        {
            'type': 'mmse.ShapesDetDataset',
            'data_root': str(root),
            'ann_file': f'annotations/instances_{split}.json',
            'data_prefix': {'img': f'{split}/'},
            'shapes': SMALL,
            **kwargs,
        }
    )


def test_mmdet_reads_what_was_generated(shapes: Path, tmp_path: Path) -> None:
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
    ]
    dataset = detection(tmp_path / 'shapes', 'train', pipeline=pipeline)
    assert digests(tmp_path / 'shapes') == digests(shapes)
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) == 12
    for k in range(12):
        scene = draw_scene(np.random.default_rng([0, 0, k]), 128)
        sample = dataset[k]
        boxes = np.array([cv2.boundingRect(m.astype(np.uint8)) for m in scene.masks])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor.numpy(), boxes)
        np.testing.assert_array_equal(sample['gt_bboxes_labels'], scene.labels)
        np.testing.assert_array_equal(sample['gt_masks'].masks, np.array(scene.masks))
        # JPEG at quality 95: near the drawn picture, not equal to it.
        assert np.abs(sample['img'].astype(int) - scene.image).mean() < 6


def test_coco_metric_scores_the_ground_truth_with_one(shapes: Path) -> None:
    pytest.importorskip('mmdet')
    import torch
    from mmdet.evaluation import CocoMetric

    dataset = detection(shapes, 'val', test_mode=True)
    metric = CocoMetric(ann_file=str(shapes / 'annotations/instances_val.json'), metric='bbox')
    metric.dataset_meta = dataset.metainfo
    samples = []
    for k in range(len(dataset)):
        info = dataset.get_data_info(k)
        instances = info['instances']
        predictions = {
            'bboxes': torch.tensor([i['bbox'] for i in instances]),
            'scores': torch.ones(len(instances)),
            'labels': torch.tensor([i['bbox_label'] for i in instances]),
        }
        samples.append(
            {'img_id': info['img_id'], 'ori_shape': (128, 128), 'pred_instances': predictions}
        )
    metric.process({}, samples)
    assert metric.evaluate(len(samples))['coco/bbox_mAP'] == pytest.approx(1.0)


def test_mmseg_reads_what_was_generated(shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    dataset = ROOT_DATASETS.build(
        {
            'type': 'mmse.ShapesSegDataset',
            'data_root': str(tmp_path / 'shapes'),
            'data_prefix': {'img_path': 'val', 'seg_map_path': 'semantic/val'},
            'shapes': SMALL,
            'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}],
        }
    )
    assert digests(tmp_path / 'shapes') == digests(shapes)
    assert dataset.metainfo['classes'] == ('background', *CLASSES) == SEG_CLASSES
    assert dataset.metainfo['label_map'] is None
    assert len(dataset.metainfo['palette']) == 7
    assert len(dataset) == 5
    for k in range(5):
        scene = draw_scene(np.random.default_rng([0, 1, k]), 128)
        expected = np.zeros((128, 128), int)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            expected[mask] = 1 + label
        np.testing.assert_array_equal(dataset[k]['gt_seg_map'], expected)


def test_missing_package_is_named_when_the_dataset_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(package: str, purpose: str) -> None:
        raise UserError(f'{purpose} needs {package}')

    monkeypatch.setitem(sys.modules, 'mmseg.datasets', None)
    base = bases.base_class('mmseg.datasets', 'BaseSegDataset', 'ShapesSegDataset')
    with pytest.raises(UserError, match=r'is needed for mmse\.ShapesSegDataset, but importing it'):
        base(data_root='data/shapes')
    monkeypatch.setattr(bases, 'require', refuse)
    with pytest.raises(UserError, match=r'^mmse\.ShapesSegDataset needs mmseg$'):
        base(data_root='data/shapes')


@pytest.mark.parametrize('missing', [('mmdet',), ('mmseg',), ('mmdet', 'mmseg')])
def test_import_without_the_packages(missing: tuple[str, ...]) -> None:
    """A process in which the packages cannot be imported still imports mmse.datasets."""
    code = (
        'import sys\n'
        f'for name in {missing}: sys.modules[name] = None\n'
        'import mmse.datasets.builtin as d\n'
        'from mmse.utils.errors import UserError\n'
        'for cls, package in ((d.ShapesDetDataset, "mmdet"), (d.ShapesSegDataset, "mmseg")):\n'
        f'    expected = package in {missing}\n'
        '    try:\n'
        '        cls(lazy_init=True)\n'
        '        failed = False\n'
        '    except UserError as error:\n'
        '        failed = f"mmse.{cls.__name__}" in str(error)\n'
        '    assert failed == expected, (cls, failed)\n'
        'print("fine")\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=240
    )
    assert result.stdout.endswith('fine\n'), result.stderr
