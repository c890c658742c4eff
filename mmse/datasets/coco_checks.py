"""Checks of COCO annotations before a training starts."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmse.datasets.findings import Report, find_missing
from mmse.utils.errors import UserError
from mmse.utils.files import ReadFiles
from mmse.utils.text import counted, name_some, repeated

_COCO_KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}
_BORDER_TOLERANCE = 1.0

# Parsed files: one is asked for its classes, then checked.
annotations: ReadFiles[dict[str, list[dict[str, Any]]]] = ReadFiles()
_OUTSIDE_LIMIT = 0.5


def coco_classes(ann_file: str | Path) -> tuple[str, ...]:
    """Class names of a COCO annotation file, in the order in which the file lists them.

    That is the order in which mmdet numbers the classes, whatever their ids are.

    Raises:
        UserError: The file is missing or not in COCO's format.
    """
    return _class_names(_load_coco(ann_file), ann_file)


def check_coco(
    ann_file: str | Path, img_dir: str | Path, classes: Sequence[str] | None = None
) -> Report:
    """Check a COCO annotation file and that its images exist.

    Args:
        ann_file: The annotation file.
        img_dir: The folder that its ``file_name`` entries are relative to.
        classes: The classes that the config trains; default: all of the file's.

    Raises:
        UserError: The file is missing or not in COCO's format; ids or names occur twice; images
            are missing; annotations refer to images or categories that are not there; a class
            of ``classes`` is not in the file, or they stand in another order there; no box is
            usable; or more than half of the boxes reach past their images.
    """
    content = _load_coco(ann_file)
    names = _class_names(content, ann_file)
    images = {image['id']: image for image in content['images']}
    category_names = {c['id']: c['name'] for c in content['categories']}
    annotations = content['annotations']
    trained = tuple(classes) if classes is not None else names
    if unknown := [name for name in trained if name not in names]:
        raise UserError(
            f'{ann_file} has no class {name_some(unknown)}: its classes are {", ".join(names)}'
        )
    if (order := tuple(name for name in names if name in trained)) != trained:
        raise UserError(
            f'{ann_file} lists its classes as {", ".join(order)}, the config as '
            f'{", ".join(trained)}: mmdet numbers them in the order of the file, so make them equal'
        )
    problems = [
        *repeated('image id', (image['id'] for image in content['images'])),
        *repeated('annotation id', (a['id'] for a in annotations)),
        *counted(
            f'images are not in {img_dir}',
            find_missing(Path(img_dir) / image['file_name'] for image in images.values()),
        ),
        *counted(
            'boxes are not four numbers',
            [f'id {a["id"]}' for a in annotations if not _is_box(a['bbox'])],
        ),
        *counted(
            'annotations have an unknown image_id',
            [f'id {a["id"]}' for a in annotations if a['image_id'] not in images],
        ),
        *counted(
            'annotations have an unknown category_id',
            [f'id {a["id"]}' for a in annotations if a['category_id'] not in category_names],
        ),
    ]
    if problems:
        raise UserError(f'{ann_file}: ' + '; '.join(problems))

    degenerate, outside, used = [], [], []
    for annotation in annotations:
        image = images[annotation['image_id']]
        kind = _box_defect(annotation, image)
        if kind == 'degenerate':
            degenerate.append(f'id {annotation["id"]} in {image["file_name"]}')
            continue
        if kind == 'outside':
            outside.append(f'id {annotation["id"]} in {image["file_name"]}')
        used.append(annotation)
    boxes = Counter(category_names[a['category_id']] for a in used)
    if not any(boxes[name] for name in trained):
        raise UserError(f'{ann_file} has no usable box of the classes {", ".join(trained)}')
    if len(outside) > _OUTSIDE_LIMIT * len(used):
        raise UserError(
            f'{ann_file}: {len(outside)} of {len(used)} boxes reach past their image '
            f'({name_some(outside)}): COCO boxes are [x, y, width, height] in pixels'
        )
    others = [f'{name} ({boxes[name]} boxes)' for name in names if name not in trained]
    warnings = [
        *counted('boxes have no extent and will be skipped', degenerate),
        *counted('boxes reach past their image', outside),
        *counted('classes have no box', [name for name in trained if not boxes[name]]),
        *counted('classes of the file are not trained', others),
    ]
    boxed = len({a['image_id'] for a in used})
    summary = (
        f'{ann_file}: {len(images)} images ({len(images) - boxed} without a box), '
        f'{sum(boxes[name] for name in trained)} boxes of {len(trained)} classes'
    )
    return Report(summary, trained, [f'{ann_file}: {warning}' for warning in warnings])


def _load_coco(ann_file: str | Path) -> dict[str, list[dict[str, Any]]]:
    if (known := annotations.get(ann_file)) is not None:
        return known
    try:
        content = json.loads(Path(ann_file).read_bytes())
    except OSError as error:
        raise UserError(f'the annotation file {ann_file} cannot be read: {error}') from error
    except ValueError as error:
        raise UserError(f'the annotation file {ann_file} is not JSON: {error}') from error
    for part, keys in _COCO_KEYS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f'{ann_file} is not in COCO format: it has no list {part!r}')
        for entry in entries:
            if not isinstance(entry, dict):
                raise UserError(f'{ann_file} is not in COCO format: {part!r} holds {entry!r}')
            if lacking := [key for key in keys if key not in entry]:
                raise UserError(
                    f'{ann_file} is not in COCO format: an entry of {part!r} has no '
                    f'{" and no ".join(lacking)}'
                )
    return annotations.keep(ann_file, content)


def _class_names(content: dict[str, list[dict[str, Any]]], ann_file: str | Path) -> tuple[str, ...]:
    categories = content['categories']
    problems = [
        *repeated('category id', (c['id'] for c in categories)),
        *repeated('category name', (c['name'] for c in categories)),
    ]
    if problems or not categories:
        raise UserError(f'{ann_file}: ' + ('; '.join(problems) or 'there are no categories'))
    return tuple(c['name'] for c in categories)


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)


def _box_defect(annotation: dict[str, Any], image: dict[str, Any]) -> str | None:
    """'degenerate' where mmdet skips the box, 'outside' where it reaches past the image."""
    x, y, width, height = annotation['bbox']
    right, bottom = x + width, y + height
    inside = min(right, image['width']) > max(x, 0) and min(bottom, image['height']) > max(y, 0)
    if annotation['area'] <= 0 or min(width, height) < 1 or not inside:
        return 'degenerate'
    beyond = max(-x, -y, right - image['width'], bottom - image['height'])
    return 'outside' if beyond > _BORDER_TOLERANCE else None
