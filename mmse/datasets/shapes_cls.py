"""The built-in data set for classification: one object a picture, or a crowd with a dominant one.

The label is the class of the largest object. With the scenes of the detection and segmentation data
it shares the generator, and so the shapes, backgrounds and clutter.

Layout under its root::

    train/000000.jpg ...        val/000000.jpg ...
    train.txt, val.txt          a line for each picture: its name and its label, 0 to 5
    dataset.json                what the folder was made from
"""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from mmse.datasets.folder import build_once, read_record
from mmse.datasets.scenes import Scene, draw_scene
from mmse.utils.errors import UserError

_VERSION = 1
_SPLITS = ('train', 'val')
_JPEG_QUALITY = 95
# The largest object has at least this many times the visible area of any other.
_DOMINANCE = 2.0
_DEFAULTS = {'crowded': False, 'size': 64, 'num_train': 3000, 'num_val': 600, 'seed': 0}


def ensure_shapes_cls(root: str | Path, **shapes: Any) -> None:
    """Generate the data set into ``root``, unless it is there already.

    Safe to call from every process of a run: one writes, the others wait. Picture ``k`` of a split
    depends on ``crowded``, ``seed``, ``size``, the split and ``k`` only.

    Args:
        root: The data folder; missing, empty, or generated with these settings.
        **shapes: As for ``check_shapes_cls``.

    Raises:
        UserError: A setting is unknown or out of range, or ``root`` holds something else.
    """
    settings = _settings(shapes)

    def build(folder: Path) -> dict[str, Any]:
        start = time.perf_counter()
        for split in _SPLITS:
            _write_split(folder, split, settings)
        print_log(
            f'Generated the built-in shapes for classification into {root}: '
            f'{settings["num_train"]} + {settings["num_val"]} pictures of {settings["size"]} x '
            f'{settings["size"]} pixels, in {time.perf_counter() - start:.1f} s (once)',
            logger='current',
        )
        return {}

    build_once(root, settings, build)


def check_shapes_cls(root: str | Path, **shapes: Any) -> dict[str, Any]:
    """Check that the data set is in ``root`` or can be generated there; nothing is written.

    Args:
        root: As for ``ensure_shapes_cls``.
        **shapes: Settings that differ from the defaults: ``crowded`` (False: one object a picture;
            True: three to seven more, whose visible areas are at most half of the largest one's),
            ``size`` (side of the square pictures in pixels, at least 32; default 64), ``num_train``
            and ``num_val`` (numbers of pictures, at least 1; 3000 and 600), ``seed`` (at least 0).

    Returns:
        All that the data set is made from: the settings, and the version of the generator.

    Raises:
        UserError: As for ``ensure_shapes_cls``.
    """
    settings = _settings(shapes)
    read_record(Path(root), settings)
    return settings


def _settings(shapes: dict[str, Any]) -> dict[str, Any]:
    """What the data set is made from, checked."""
    lowest = {'size': 32, 'num_train': 1, 'num_val': 1, 'seed': 0}
    for name, value in shapes.items():
        if name not in _DEFAULTS:
            allowed = ', '.join(_DEFAULTS)
            raise UserError(f'the built-in shapes have no setting {name!r}; allowed: {allowed}')
        if name == 'crowded' and not isinstance(value, bool):
            raise UserError(f'the built-in shapes need crowded as True or False, got {value!r}')
        if name != 'crowded' and (not isinstance(value, int) or value < lowest[name]):
            raise UserError(
                f'the built-in shapes need {name} as an integer of at least {lowest[name]}, '
                f'got {value!r}'
            )
    return {'name': 'shapes_cls', 'version': _VERSION, **_DEFAULTS, **shapes}


def draw_labelled(rng: np.random.Generator, size: int, crowded: bool) -> tuple[Scene, int]:
    """Draw a scene with one largest object.

    Args:
        rng: Where all that is random comes from.
        size: Side of the square picture in pixels, at least 32.
        crowded: Put three to seven smaller objects beside it.

    Returns:
        The scene and the label of its largest object, 0 to 5.
    """
    while True:
        if crowded:
            others = np.exp(rng.uniform(np.log(0.11), np.log(0.25), rng.integers(3, 8)))
            sides = np.append(rng.uniform(0.4, 0.65), others)
        else:
            sides = np.exp(rng.uniform(np.log(0.2), np.log(0.65), 1))
        scene = draw_scene(rng, size, [float(side) for side in size * sides])
        areas = np.array([mask.sum() for mask in scene.masks])
        if len(areas) < (4 if crowded else 1):
            continue  # no place was found for some
        largest = int(areas.argmax())
        if (np.delete(areas, largest) * _DOMINANCE <= areas[largest]).all():
            return scene, scene.labels[largest]


def _write_split(folder: Path, split: str, settings: dict[str, Any]) -> None:
    (folder / split).mkdir()
    lines = []
    for index in range(settings[f'num_{split}']):
        rng = np.random.default_rng([settings['seed'], _SPLITS.index(split), index])
        scene, label = draw_labelled(rng, settings['size'], settings['crowded'])
        name = f'{index:06d}.jpg'
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        cv2.imwrite(str(folder / split / name), scene.image, quality)
        lines.append(f'{name} {label}\n')
    (folder / f'{split}.txt').write_text(''.join(lines))
