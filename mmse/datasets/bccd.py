"""Blood Cell Count and Detection (BCCD): Pascal VOC boxes to COCO JSON."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from mmse.datasets.conversion import convert, find_layout, read_image
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

CLASSES = ('RBC', 'WBC', 'Platelets')
ORIGIN = 'github.com/Shenggan/BCCD_Dataset'

_VERSION = 1
_SPLITS = ('train', 'val', 'test')
_REQUIRED = ('train', 'val')
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_DEFECTS = ('dropped_degenerate', 'dropped_outside', 'clipped')


def prepare_bccd(src: str | Path, dst: str | Path) -> dict[str, dict[str, int]]:
    """Convert a clone of BCCD to COCO JSON with the images beside it.

    Writes ``<split>/*.jpg`` and ``annotations/instances_<split>.json`` for train, val and, where
    the clone lists it, test. VOC's boxes count pixels from 1 with both ends included, so
    (xmin, ymin, xmax, ymax) covers x from xmin - 1 to xmax. A box without extent is dropped; one
    that reaches past the image, as the image file has it, is clipped, and dropped if nothing is
    left. Nothing in ``src`` is changed.

    Args:
        src: The clone, or the folder ``BCCD`` in it.
        dst: The folder to write; missing, empty, or made from the same files.

    Returns:
        For every split: numbers of ``images``, ``boxes`` and boxes of each class, and of the boxes
        ``dropped_degenerate``, ``dropped_outside`` and ``clipped``.

    Raises:
        UserError: The source is not BCCD or has files missing, or ``dst`` holds something else.
    """
    parts = ('Annotations', 'ImageSets/Main', 'JPEGImages')
    root = find_layout(src, 'BCCD', parts, ORIGIN)
    return convert('bccd', _VERSION, root, dst, _read_splits(root), _convert_split)


def _read_splits(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """(image, annotation) files of every split that is listed."""
    splits = {}
    missing = []
    for split in _SPLITS:
        listing = root / 'ImageSets' / 'Main' / f'{split}.txt'
        if not listing.is_file():
            if split in _REQUIRED:
                missing.append(str(listing))
            continue
        splits[split] = [
            (root / 'JPEGImages' / f'{name}.jpg', root / 'Annotations' / f'{name}.xml')
            for name in listing.read_text().split()
        ]
        missing += [str(file) for pair in splits[split] for file in pair if not file.is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} files of BCCD are missing ({name_some(missing)}): '
            f'give --src a whole clone of {ORIGIN}'
        )
    return splits


def _convert_split(folder: Path, split: str, pairs: list[tuple[Path, Path]]) -> dict[str, int]:
    annotations: list[dict[str, Any]]
    images, annotations = [], []
    counts: Counter[str | None] = Counter()
    (folder / split).mkdir()
    (folder / 'annotations').mkdir(exist_ok=True)
    for image_id, (image_file, annotation_file) in enumerate(pairs):
        height, width = read_image(image_file).shape[:2]
        shutil.copyfile(image_file, folder / split / image_file.name)
        images.append(
            {'id': image_id, 'file_name': image_file.name, 'width': width, 'height': height}
        )
        for name, corners in _read_boxes(annotation_file):
            box, defect = _to_coco(corners, width, height)
            counts[defect] += 1
            if box is None:
                continue
            counts[name] += 1
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': CLASSES.index(name) + 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
            )
    content = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k + 1, 'name': name} for k, name in enumerate(CLASSES)],
    }
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    kinds = {key: counts[key] for key in (*CLASSES, *_DEFECTS)}
    return {'images': len(images), 'boxes': len(annotations), **kinds}


def _read_boxes(file: Path) -> list[tuple[str, tuple[float, ...]]]:
    """Class names and (xmin, ymin, xmax, ymax) as the file has them."""
    try:
        boxes = []
        for item in ElementTree.parse(file).iter('object'):
            corners = tuple(float(item.findtext(f'bndbox/{key}')) for key in _CORNERS)  # type: ignore[arg-type]
            boxes.append((item.findtext('name', '').strip(), corners))
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise UserError(f'{file} is not a Pascal VOC annotation: {error}') from error
    unknown = sorted({name for name, _ in boxes} - set(CLASSES))
    if unknown:
        raise UserError(f'{file} has the classes {unknown}; BCCD has {", ".join(CLASSES)}')
    return boxes


def _to_coco(
    corners: tuple[float, ...], width: int, height: int
) -> tuple[list[float] | None, str | None]:
    """COCO's [x, y, width, height] inside the image or None, and what was wrong if anything."""
    xmin, ymin, xmax, ymax = corners
    if xmax <= xmin or ymax <= ymin:
        return None, 'dropped_degenerate'
    left, top = max(xmin - 1, 0), max(ymin - 1, 0)
    right, bottom = min(xmax, width), min(ymax, height)
    if right <= left or bottom <= top:
        return None, 'dropped_outside'
    clipped = (left, top, right, bottom) != (xmin - 1, ymin - 1, xmax, ymax)
    return [left, top, right - left, bottom - top], 'clipped' if clipped else None
