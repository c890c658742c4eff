"""Small data sets with made-up faults, and configs that read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmse.datasets.check import check_data
from mmse.datasets.findings import Report

Change = Callable[[dict[str, Any]], Any]

DET_PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations', 'with_bbox': True},
    {'type': 'Resize', 'scale': (60, 40), 'keep_ratio': True},
    {'type': 'PackDetInputs'},
]
SEG_PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'LoadAnnotations'},
    {'type': 'PackSegInputs'},
]
ORIENTATION = 0x0112


def coco() -> dict[str, Any]:
    """Four images of 60 x 40 with one box each of the classes cat, dog, cat, dog."""
    return {
        'images': [{'id': k, 'file_name': f'{k}.png', 'width': 60, 'height': 40} for k in range(4)],
        'annotations': [
            {
                'id': k + 1,
                'image_id': k,
                'category_id': 7 if k % 2 else 9,
                'bbox': [5, 5, 10, 10],
                'area': 100,
                'iscrowd': 0,
                'segmentation': [[5, 5, 15, 5, 15, 15, 5, 15]],
            }
            for k in range(4)
        ],
        'categories': [{'id': 9, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    }


def write_coco(root: Path, *changes: Change) -> Path:
    """Write ``coco()``, changed, as ``ann.json``, and its images, unless they are there."""
    content = coco()
    for k in range(4):
        file = root / 'img' / f'{k}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            Image.fromarray(np.full((40, 60, 3), 40 * k, np.uint8)).save(file)
    for change in changes:
        change(content)
    (root / 'ann.json').write_text(json.dumps(content))
    return root / 'ann.json'


def edit(part: str, index: int, **values: Any) -> Change:
    """Set keys of one entry."""
    return lambda content: content[part][index].update(values)


def each(part: str, **values: Any) -> Change:
    """Set keys of every entry."""
    return lambda content: [entry.update(values) for entry in content[part]]


def drop(part: str, key: str) -> Change:
    """Take a key out of every entry."""
    return lambda content: [entry.pop(key) for entry in content[part]]


def detection(root: Path, **settings: Any) -> dict[str, Any]:
    """The data set of ``write_coco`` in a config."""
    return {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': 'ann.json',
        'data_prefix': {'img': 'img'},
        'metainfo': {'classes': ('cat', 'dog')},
        'pipeline': DET_PIPELINE,
        **settings,
    }


def write_pairs(root: Path, labels: list[np.ndarray], images: list[Any] | None = None) -> None:
    """Write label maps ``ann/K.png`` and as many images ``img/K.png``, of the same sizes."""
    for folder in ('img', 'ann'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k, array in enumerate(labels):
        Image.fromarray(array).save(root / 'ann' / f'{k}.png')
        noise = rng.integers(0, 256, (*array.shape[:2], 3), np.uint8)
        Image.fromarray(noise if images is None else images[k]).save(root / 'img' / f'{k}.png')


def segmentation(root: Path, classes: int = 3, **settings: Any) -> dict[str, Any]:
    """The data set of ``write_pairs`` in a config."""
    return {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': 'img', 'seg_map_path': 'ann'},
        'img_suffix': '.png',
        'metainfo': {'classes': tuple('abcdefgh'[:classes])},
        'pipeline': SEG_PIPELINE,
        **settings,
    }


def config(dataset: dict[str, Any], split: str = 'train', batch_size: int = 1) -> Config:
    """A config with one data loader and the preprocessor of its codebase."""
    detects = 'img_path' not in dataset['data_prefix']
    scope = 'mmdet' if detects else 'mmseg'
    kind = 'DetDataPreprocessor' if detects else 'SegDataPreProcessor'
    preprocessor: dict[str, Any] = {'type': kind, 'mean': [0.0] * 3, 'std': [1.0] * 3}
    if not detects:
        preprocessor['size_divisor'] = 32
    loader = {'batch_size': batch_size, 'dataset': dataset}
    return Config(
        {
            'default_scope': scope,
            'model': {'data_preprocessor': preprocessor},
            f'{split}_dataloader': loader,
        }
    )


def check(dataset: dict[str, Any], split: str = 'train', **options: Any) -> Report:
    """The report on one data set."""
    metrics = options.pop('metrics', [{'type': 'CocoMetric'}] if split != 'train' else [])
    cfg = config(dataset, split, **options)
    init_default_scope(cfg.default_scope)
    (report,) = check_data(cfg, split, metrics)
    return report
