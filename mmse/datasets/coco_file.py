"""COCO annotation files: ids, classes, and what COCOeval needs."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmse.datasets.coco_values import Content, Entry, parse
from mmse.datasets.findings import refuse
from mmse.utils.errors import UserError
from mmse.utils.files import ReadFiles
from mmse.utils.text import counted, name_some, repeated

# Parsed files: one is asked for its classes, then checked.
annotations: ReadFiles[Content] = ReadFiles()


def coco_classes(ann_file: str | Path) -> tuple[str, ...]:
    """Class names of a COCO annotation file, in the order in which the file lists them.

    That is the order in which mmdet numbers the classes, whatever their ids are.

    Raises:
        UserError: The file is missing or not in COCO's format, or names or ids occur twice.
    """
    content = read_coco(ann_file, without_objects=True)
    categories = content['categories']
    problems = repeated('category id', (c['id'] for c in categories))
    used = {a['category_id'] for a in content['annotations']}
    names = Counter(c['name'] for c in categories)
    for name in [name for name, count in names.items() if count > 1]:
        ids = [c['id'] for c in categories if c['name'] == name]
        unused = [i for i in ids if i not in used]
        problems.append(
            f'{len(ids)} categories are called {name} (ids {", ".join(map(str, ids))})'
            + (
                f', and no annotation has id {name_some([str(i) for i in unused])}: '
                'take that entry out of "categories"'
                if unused
                else ': give each a name of its own'
            )
        )
    if not categories:
        problems.append('there are no categories')
    refuse(str(ann_file), problems)
    return tuple(c['name'] for c in categories)


def labelled_classes(ann_file: str | Path) -> tuple[str, ...]:
    """The classes of a file without those that stand for no label of objects.

    Roboflow writes the name of the project as the category that all others belong to, LabelMe
    ``_background_``. Such a category counts only if there are annotations of it.

    Raises:
        UserError: As for ``coco_classes``.
    """
    content = read_coco(ann_file, without_objects=True)
    used = {a['category_id'] for a in content['annotations']}
    groups = {c['supercategory'] for c in content['categories'] if _is_grouped(c)}
    groups |= {'_background_', '__ignore__'}
    empty = {c['name'] for c in content['categories'] if c['id'] not in used}
    names = coco_classes(ann_file)
    return tuple(name for name in names if name not in groups & empty) or names


def read_coco(ann_file: str | Path, *, without_objects: bool = False) -> Content:
    """Parse a COCO annotation file and check the type of every value that is used.

    Args:
        ann_file: The file.
        without_objects: A file without the list ``annotations`` will do, as for images that are
            only predicted.

    Raises:
        UserError: The file cannot be read, or is not in COCO's format.
    """
    if (content := annotations.get(ann_file)) is None:
        content = annotations.keep(ann_file, parse(Path(ann_file)))
    if 'annotations' not in content and not without_objects:
        raise UserError(
            f"{ann_file} is not in COCO format: it has no list 'annotations'; to predict images "
            'without ground truth, set format_only=True and outfile_prefix of test_evaluator'
        )
    return {'annotations': [], **content}


def check_references(content: Content, ann_file: str | Path) -> None:
    """Check that ids are given once, that those they refer to exist, and that boxes are in pixels.

    Raises:
        UserError: It counts and names what does not fit.
    """
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    objects = content['annotations']
    problems = [
        *repeated('image id', (image['id'] for image in content['images'])),
        *repeated('annotation id', (a['id'] for a in objects)),
        *_unknown(objects, 'image_id', images),
        *_unknown(objects, 'category_id', categories),
    ]
    refuse(str(ann_file), problems)
    boxes = [a['bbox'] for a in objects]
    pixels = 'COCO boxes are [x, y, width, height] in pixels'
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        raise UserError(
            f'{ann_file}: all boxes lie between 0 and 1: {pixels}, so multiply them by the width '
            'and height of their image'
        )
    if objects and all(map(_gives_corners, objects)):
        raise UserError(
            f'{ann_file}: all boxes are [x1, y1, x2, y2], as their areas tell: {pixels}'
        )


def check_for_evaluation(content: Content, ann_file: str | Path, classwise: bool) -> None:
    """Check what COCOeval needs beyond what a training needs.

    Args:
        content: Of the file.
        ann_file: The file.
        classwise: Whether the score of each class is asked for.

    Raises:
        UserError: An annotation has no ``iscrowd``, or an id that is 0 or a text; or the ids of
            categories would swap scores of classes.
    """
    refuse(str(ann_file), evaluation_faults(content, classwise))


def evaluation_faults(content: Content, classwise: bool) -> list[str]:
    """Sentences about annotations that COCOeval would fail on or misread; ``mmse.CocoMetric`` does
    not.

    COCOeval keeps the ids of annotations in an array of numbers, where 0 stands for "no match". It
    sorts the ids of categories, while mmdet names the scores of classes in the order of the file.

    Args:
        content: Of a COCO file.
        classwise: Whether the score of each class is asked for.
    """
    names = {image['id']: image['file_name'] for image in content['images']}
    objects = content['annotations']
    problems = [
        *counted(
            'annotations have no iscrowd, which COCOeval reads: write 0 for an ordinary object',
            [f'id {a["id"]}' for a in objects if 'iscrowd' not in a],
        ),
        *counted(
            'annotations have a text as id, and COCOeval needs numbers: number them from 1',
            [json.dumps(a['id']) for a in objects if isinstance(a['id'], str)],
        ),
    ]
    if zero := [str(names.get(a['image_id'])) for a in objects if a['id'] == 0]:
        problems.append(
            f'an annotation has id 0 (in {zero[0]}), which COCOeval takes for "no match", so that '
            'its object would count as missed: number the annotations from 1'
        )
    ids = [category['id'] for category in content['categories']]
    if classwise and ids != sorted(ids, key=lambda i: (isinstance(i, str), i)):
        problems.append(
            f'the ids of the categories do not rise ({name_some([str(i) for i in ids])}), and '
            'COCOeval sorts them, so that with classwise=True classes would get the scores of '
            'others: sort the categories by their ids, or take mmse.CocoMetric'
        )
    return problems


def check_classes(content: Content, ann_file: str | Path, trained: Sequence[str]) -> list[str]:
    """Compare the classes of the config with those of the file.

    Returns:
        Warnings: classes of the file that are not trained.

    Raises:
        UserError: A class is not in the file, or they stand in another order there.
    """
    names = coco_classes(ann_file)
    if unknown := [name for name in trained if name not in names]:
        raise UserError(
            f'{ann_file} has no class {name_some(unknown)}: its classes are {", ".join(names)}'
        )
    if (order := tuple(name for name in names if name in trained)) != tuple(trained):
        raise UserError(
            f'{ann_file} lists its classes as {", ".join(order)}, the config as '
            f'{", ".join(trained)}: mmdet numbers them in the order of the file, so make them equal'
        )
    ids = {c['id']: c['name'] for c in content['categories']}
    boxes = Counter(ids.get(a['category_id']) for a in content['annotations'])
    others = [f'{name} ({boxes[name]} objects)' for name in names if name not in trained]
    return counted('classes of the file are not trained', others)


def _is_grouped(category: Entry) -> bool:
    return isinstance(group := category.get('supercategory'), str) and group != category['name']


def _gives_corners(annotation: Entry) -> bool:
    """Whether the area is that of a box of two corners, and not that of width and height."""
    x, y, third, fourth = map(float, annotation['bbox'])
    area = float(annotation['area'])
    of_corners, of_sides = (third - x) * (fourth - y), third * fourth
    return third > x and fourth > y and abs(area - of_corners) < 0.01 * abs(of_sides - of_corners)


def _unknown(objects: Sequence[Entry], key: str, known: set[Any]) -> list[str]:
    strange = [a for a in objects if a[key] not in known]
    found = counted(
        f'annotations have an unknown {key}',
        [f'id {a["id"]}: {json.dumps(a[key])}' for a in strange],
    )
    as_text = {str(k) for k in known}
    if strange and all(str(a[key]) in as_text for a in strange):
        return [f'{found[0]}: it is a text in one place and a number in the other']
    return found
