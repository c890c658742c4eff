"""Pictures of predictions, by numbers: what is drawn, where, and how large."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from support.pictures import edge, enlarged

from mmse.datasets.scenes import CLASSES, PALETTE
from mmse.datasets.shapes import SEG_CLASSES, SEG_PALETTE
from mmse.engine.pictures import draw_pair

GREY = 90
Box = tuple[int, int, int, int]


def visualizer_of(kind: str) -> Visualizer:
    init_default_scope({'det': 'mmdet', 'seg': 'mmseg'}[kind])
    name = {'det': 'DetLocalVisualizer', 'seg': 'SegLocalVisualizer'}[kind]
    visualizer = VISUALIZERS.build({'type': name, 'name': f'test_{kind}'})
    meta = {'det': (CLASSES, PALETTE), 'seg': (SEG_CLASSES, SEG_PALETTE)}[kind]
    visualizer.dataset_meta = dict(zip(('classes', 'palette'), meta, strict=True))
    return visualizer


def grey_photo(folder: Path, height: int, width: int) -> str:
    path = str(folder / 'photo.png')
    cv2.imwrite(path, np.full((height, width, 3), GREY, np.uint8))
    return path


def halves(visualizer: Visualizer, sample: BaseDataElement) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and prediction in RGB."""
    pair = draw_pair(visualizer, sample)[..., ::-1].astype(int)
    left, right = np.split(pair, 2, axis=1)
    return left, right


@pytest.mark.parametrize(('size', 'factor'), [((160, 200), 2), ((60, 80), 5), ((400, 480), 1)])
def test_a_pair_of_boxes(size: tuple[int, int], factor: int, tmp_path: Path) -> None:
    """Ground truth left, predictions above the threshold right, nothing else anywhere."""
    height, width = size

    def at(*shares: float) -> Box:
        x1, y1, x2, y2 = shares
        return int(width * x1), int(height * y1), int(width * x2), int(height * y2)

    truth, found, doubted = (
        at(0.1, 0.2, 0.4, 0.8),
        at(0.55, 0.3, 0.9, 0.9),
        at(0.15, 0.4, 0.45, 0.95),
    )
    sample = DetDataSample(metainfo={'img_path': grey_photo(tmp_path, height, width)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([truth]).float(), labels=torch.tensor([0])
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([found, doubted]).float(),
        labels=torch.tensor([3, 1]),
        scores=torch.tensor([0.41, 0.39]),
    )
    left, right = halves(visualizer_of('det'), sample)
    assert left.shape == right.shape == (factor * height, factor * width, 3)
    drawn = {box: tuple(factor * x for x in box) for box in (truth, found, doubted)}
    for half, box, label in ((left, truth, 0), (right, found, 3)):
        # mmdet draws edges with 80% of the class's colour.
        colour = 0.8 * np.array(PALETTE[label]) + 0.2 * GREY
        assert np.abs(half[edge(drawn[box])] - colour).max() < 12
    for half, box in ((left, found), (left, doubted), (right, truth), (right, doubted)):
        others = half[edge(drawn[box])]
        assert (np.abs(others - GREY).max(axis=1) < 12).mean() > 0.6
    assert sample.pred_instances.bboxes.tolist() == [list(found), list(doubted)]


@pytest.mark.parametrize('kind', ['bitmaps', 'polygons', 'tensor'])
def test_a_pair_of_instances(kind: str, tmp_path: Path) -> None:
    """A mask covers its own pixels, each of which has become a square."""
    height, width, factor = 60, 100, 4
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, 20:50, 30:70] = 1
    corners = np.array([30, 20, 70, 20, 70, 50, 30, 50], float)
    masks = {
        'bitmaps': BitmapMasks(mask, height, width),
        'polygons': PolygonMasks([[corners]], height, width),
        'tensor': torch.from_numpy(mask).bool(),
    }
    sample = DetDataSample(metainfo={'img_path': grey_photo(tmp_path, height, width)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[30.0, 20, 70, 50]]), labels=torch.tensor([2]), masks=masks[kind]
    )
    left, right = halves(visualizer_of('det'), sample)
    assert left.shape == (factor * height, factor * width, 3)
    assert (right == GREY).all()
    inside = np.kron(mask[0], np.ones((factor, factor), int)).astype(bool)
    border = cv2.dilate(inside.astype(np.uint8), np.ones((15, 15))).astype(bool)
    core = cv2.erode(inside.astype(np.uint8), np.ones((15, 15))).astype(bool)
    core[: factor * 35] = False  # the label is written above
    changed = np.abs(left - GREY).max(axis=2) > 8
    assert changed[core].all()
    assert np.ptp(left[core], axis=0).max() <= 4
    assert not changed[~border].any()


@pytest.mark.parametrize(('size', 'factor'), [((96, 128), 4), ((320, 416), 1)])
def test_a_pair_of_label_maps(size: tuple[int, int], factor: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.png'), photo[..., ::-1])
    block = np.ones((size[0] // 3, size[0] // 3), int)
    truth, guess = (
        np.kron(rng.integers(0, 7, (4, 5)), block)[: size[0], : size[1]] for _ in range(2)
    )
    sample = SegDataSample(metainfo={'img_path': str(tmp_path / 'photo.png')})
    sample.gt_sem_seg = PixelData(data=torch.tensor(truth)[None])
    sample.pred_sem_seg = PixelData(data=torch.tensor(guess)[None])
    left, right = halves(visualizer_of('seg'), sample)
    large, found_factor = enlarged(photo)
    assert found_factor == factor
    palette = np.array(SEG_PALETTE)
    squares = np.ones((factor, factor), int)
    for half, labels in ((left, truth), (right, guess)):
        expected = 0.2 * large + 0.8 * palette[np.kron(labels, squares)]
        # Class names are written over some of it.
        assert (np.abs(half - expected).max(axis=2) <= 2).mean() > 0.6
    wrong = 0.2 * large + 0.8 * palette[np.kron(guess, squares)]
    assert (np.abs(left - wrong).max(axis=2) <= 2).mean() < 0.5


def test_labels_of_small_boxes_are_as_large_as_those_of_others(tmp_path: Path) -> None:
    """mmdet would write them in 6 points, 8 pixels; 10 points have capitals of 10 pixels."""
    sample = DetDataSample(metainfo={'img_path': grey_photo(tmp_path, 100, 100)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[30.0, 60, 45, 75]]), labels=torch.tensor([0])
    )
    visualizer = visualizer_of('det')
    pair = draw_pair(visualizer, sample)
    dark = (pair < 60).all(axis=2)  # the background of the label
    assert 12 <= dark.any(axis=1).sum() <= 20
    assert 'draw_texts' not in vars(visualizer)


def test_labels_at_the_border_are_whole(tmp_path: Path) -> None:
    visualizer = visualizer_of('det')
    sizes = []
    for box in ([100.0, 100, 140, 140], [440.0, 440, 450, 450]):
        sample = DetDataSample(metainfo={'img_path': grey_photo(tmp_path, 450, 450)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([0]))
        dark = (draw_pair(visualizer, sample)[:, :450] < 60).all(axis=2)
        sizes.append((dark.any(axis=0).sum(), dark.any(axis=1).sum()))
    middle, corner = sizes
    assert middle[0] > 30
    assert np.abs(np.subtract(middle, corner)).max() <= 2  # at other fractions of a pixel
