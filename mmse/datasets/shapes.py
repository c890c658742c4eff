"""The built-in data set: generated scenes as COCO instances and semantic label maps.

Layout under its root::

    train/000000.jpg ...        val/000000.jpg ...
    annotations/instances_train.json, annotations/instances_val.json
    semantic/train/000000.png ...   (0 = background, 1 to 6 = the shapes)
    examples.png                a sheet of examples with their labels drawn
    dataset.json                what the folder was made from
"""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from mmse.datasets.folder import build_once, read_record
from mmse.datasets.scenes import CLASSES, PALETTE, Scene, draw_scene
from mmse.datasets.sheet import draw_sheet
from mmse.utils.errors import UserError

DEFAULT_ROOT = 'data/shapes'
SEG_CLASSES = ('background', *CLASSES)
SEG_PALETTE = [(60, 60, 60), *PALETTE]

_VERSION = 3
_SPLITS = ('train', 'val')
_JPEG_QUALITY = 95
_NUM_EXAMPLES = 8


def ensure_shapes(
    root: str | Path = DEFAULT_ROOT,
    *,
    size: int = 128,
    num_train: int = 640,
    num_val: int = 128,
    seed: int = 0,
) -> None:
    """Generate the data set into ``root``, unless it is there already.

    Safe to call from every process of a run: one writes, the others wait. Picture ``k`` of a
    split depends on ``seed``, ``size``, the split and ``k`` only.

    Args:
        root: The data folder; missing, empty, or generated with these settings.
        size: Side of the square pictures in pixels, at least 32.
        num_train: Number of training pictures, at least 1.
        num_val: Number of validation pictures, at least 1.
        seed: Seed of everything random, at least 0.

    Raises:
        UserError: A setting is out of range, or ``root`` holds something else.
    """
    settings = _settings(size=size, num_train=num_train, num_val=num_val, seed=seed)

    def build(folder: Path) -> dict[str, Any]:
        start = time.perf_counter()
        counts = {
            split: _write_split(folder, split, number, size, seed)
            for split, number in zip(_SPLITS, (num_train, num_val), strict=True)
        }
        examples = [_scene(seed, 0, k, size) for k in range(min(_NUM_EXAMPLES, num_train))]
        cv2.imwrite(str(folder / 'examples.png'), draw_sheet(examples))
        print_log(
            f'Generated the built-in shapes data set into {root}: {num_train} + {num_val} '
            f'pictures of {size} x {size} pixels with {sum(counts.values())} objects, '
            f'in {time.perf_counter() - start:.1f} s (once)',
            logger='current',
        )
        return {'instances': counts}

    build_once(root, settings, build)


def check_shapes(root: str | Path = DEFAULT_ROOT, **shapes: int) -> dict[str, Any]:
    """Check that the data set is in ``root`` or can be generated there; nothing is written.

    Args:
        root: As for ``ensure_shapes``.
        shapes: Settings of ``ensure_shapes``.

    Returns:
        All that the data set is made from: the settings, and the version of the generator.

    Raises:
        UserError: As for ``ensure_shapes``.
    """
    settings = _settings(**shapes)
    read_record(Path(root), settings)
    return settings


def _settings(
    size: int = 128, num_train: int = 640, num_val: int = 128, seed: int = 0
) -> dict[str, Any]:
    """What the data set is made from, checked."""
    lowest = {'size': 32, 'num_train': 1, 'num_val': 1, 'seed': 0}
    given = {'size': size, 'num_train': num_train, 'num_val': num_val, 'seed': seed}
    for name, value in given.items():
        if not isinstance(value, int) or value < lowest[name]:
            raise UserError(
                f'the built-in shapes need {name} as an integer of at least {lowest[name]}, '
                f'got {value!r}'
            )
    return {'name': 'shapes', 'version': _VERSION, **given}


def _scene(seed: int, split: int, index: int, size: int) -> Scene:
    return draw_scene(np.random.default_rng([seed, split, index]), size)


def _write_split(folder: Path, split: str, number: int, size: int, seed: int) -> int:
    """Write one split's pictures, label maps and annotations; returns the number of instances."""
    annotations: list[dict[str, Any]]
    images, annotations = [], []
    (folder / split).mkdir()
    (folder / 'semantic' / split).mkdir(parents=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    for index in range(number):
        scene = _scene(seed, _SPLITS.index(split), index, size)
        name = f'{index:06d}'
        cv2.imwrite(
            str(folder / split / f'{name}.jpg'),
            scene.image,
            [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
        )
        cv2.imwrite(str(folder / 'semantic' / split / f'{name}.png'), scene.semantic_map())
        images.append({'id': index, 'file_name': f'{name}.jpg', 'width': size, 'height': size})
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            annotations.append(
                {'id': len(annotations) + 1, 'image_id': index, **_annotation(label, mask)}
            )
    content = {
        'info': {'description': f'shapes, version {_VERSION}, seed {seed}'},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k + 1, 'name': name} for k, name in enumerate(CLASSES)],
    }
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return len(annotations)


def _annotation(label: int, mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        'category_id': label + 1,
        'bbox': coco_mask.toBbox(rle).tolist(),
        'area': int(coco_mask.area(rle)),
        'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode()},
        'iscrowd': 0,
    }
