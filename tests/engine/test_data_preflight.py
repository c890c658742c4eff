"""The check of data where a run begins: configs of both kinds, wrappers, and what is logged."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from support.data_checks import detection, each, edit, write_coco, write_pairs
from support.engine import CONFIGS, TINY_FASTER_RCNN, TINY_FCN
from support.own_data import segmentation_config, write_segmentation

from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.utils.errors import UserError

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Level and text of every line that the preflight logs."""
    lines: list[tuple[int, str]] = []

    def print_log(text: str, logger: str, level: int = 20) -> None:
        lines.append((level, text))

    monkeypatch.setattr('mmse.engine.preflight.print_log', print_log)
    return lines


def detector(root: Path, dataset: dict[str, Any]) -> Config:
    """A shipped detector, tiny, that trains on a data set of two classes."""
    cfg = load_config(str(CONFIGS / 'faster_rcnn_se_r50.py'), TINY_FASTER_RCNN)
    cfg.model.roi_head.bbox_head.num_classes = 2
    cfg.train_dataloader.dataset = dataset
    return cfg


def test_wrapped_and_concatenated_sets_are_read_one_by_one(
    tmp_path: Path, logged: list[tuple[int, str]]
) -> None:
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        write_coco(tmp_path / name)
    write_coco(tmp_path / 'b', edit('annotations', 0, iscrowd=1))
    parts = [detection(tmp_path / name) for name in ('a', 'b')]
    both = {'type': 'ConcatDataset', 'datasets': parts}
    cfg = detector(tmp_path, {'type': 'RepeatDataset', 'times': 3, 'dataset': both})
    preflight(cfg, ('train',), whole_checkpoint=False)
    texts = [text for _, text in logged]
    assert [t.split(': ')[1] for t in texts] == [
        f'{tmp_path}/{name}/ann.json' for name in ('a', 'b', 'b')
    ]
    assert '4 objects of 2 classes' in texts[0] and '3 objects of 2 classes' in texts[1]
    assert [level for level, _ in logged] == [20, 20, 30]
    write_coco(tmp_path / 'b', each('images', width=99))
    with pytest.raises(UserError, match=r'b/ann\.json: 4 images are not of the size'):
        preflight(cfg, ('train',), whole_checkpoint=False)
    write_coco(tmp_path / 'b')
    cfg.train_dataloader.dataset.dataset.datasets[1].pipeline = [{'type': 'LoadImage'}]
    with pytest.raises(
        UserError,
        match=r'train_dataloader\.dataset\.dataset\.datasets\.1\.pipeline\.0: there is no trans',
    ):
        preflight(cfg, ('train',), whole_checkpoint=False)


def test_classes_in_place_of_names(tmp_path: Path, logged: list[tuple[int, str]]) -> None:
    """As pure-Python configs have them."""
    from mmdet.datasets import CocoDataset
    from mmdet.datasets import transforms as mmdet_transforms

    write_coco(tmp_path)
    dataset = detection(tmp_path, type=CocoDataset)
    dataset['pipeline'] = [
        {**step, 'type': getattr(mmdet_transforms, step['type'], step['type'])}
        for step in dataset['pipeline']
    ]
    preflight(detector(tmp_path, dataset), ('train',), whole_checkpoint=False)
    ((_, text),) = logged
    assert text.endswith('4 objects of 2 classes (cat 2, dog 2)')
    dataset['metainfo'] = {'classes': ('cat', 'dog', 'cow')}
    with pytest.raises(UserError, match=r'num_classes is 2, but CocoDataset has 3 classes'):
        preflight(detector(tmp_path, dataset), ('train',), whole_checkpoint=False)


def test_images_of_two_sizes_without_a_resize(tmp_path: Path) -> None:
    labels = np.tile(np.array([0, 1], np.uint8), (32, 16))
    write_pairs(tmp_path, [labels, np.concatenate([labels, labels])])
    write_segmentation(tmp_path / 'own', {'train': 1, 'val': 1})
    cfg = load_config(str(segmentation_config(tmp_path, tmp_path / 'own')), TINY_FCN)
    data = {
        'type': 'BaseSegDataset',
        'data_root': str(tmp_path),
        'data_prefix': {'img_path': 'img', 'seg_map_path': 'ann'},
        'img_suffix': '.png',
        'metainfo': {'classes': ('a', 'b', 'c', 'd')},
        'pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
            {'type': 'PackSegInputs'},
        ],
    }
    cfg.train_dataloader.dataset = data
    cfg.train_dataloader.batch_size = 2
    cfg.model.data_preprocessor = {
        'type': 'SegDataPreProcessor',
        'size': None,
        'size_divisor': 1,
    }
    preflight(cfg, ('train',), whole_checkpoint=False)  # padded to the larger one
    cfg.model.data_preprocessor = {'type': 'SegDataPreProcessor', 'size': (32, 32)}
    sentence = (
        'images leave train_dataloader.dataset.pipeline in different sizes (32x32, 32x64), which '
        'do not fit into one batch of 2: put a Resize or RandomCrop in, or set '
        'model.data_preprocessor.size=(height, width)'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        preflight(cfg, ('train',), whole_checkpoint=False)


def test_channels_of_images_and_backbone(tmp_path: Path) -> None:
    write_coco(tmp_path)
    cfg = detector(tmp_path, detection(tmp_path))
    cfg.model.backbone.in_channels = 4
    sentence = (
        'train_dataloader.dataset: images have 3 channels as they are loaded and normalised, but '
        'model.backbone takes 4: set model.backbone.in_channels=3, or the color_type of '
        'train_dataloader.dataset.pipeline.0'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        preflight(cfg, ('train',), whole_checkpoint=False)
    cfg.model.backbone.in_channels = 3
    preflight(cfg, ('train',), whole_checkpoint=False)
