"""Pascal VOC: boxes in XML files, and lists of names, to COCO JSON."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from mmse.datasets.conversion import IMAGES, convert, read_image
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

PARTS = ('Annotations', 'ImageSets/Main', 'JPEGImages')
Pairs = list[tuple[Path, Path]]

_VERSION = 2
_MARKED = re.compile(r'\S.*\s(-1|0|1)')  # of a class list: an image, and whether it is in it
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_DEFECTS = ('dropped_degenerate', 'dropped_outside', 'clipped')


class Box(NamedTuple):
    """An object of a VOC file.

    Args:
        name: Its class.
        corners: (xmin, ymin, xmax, ymax) as the file has them.
        difficult: Whether it is neither trained nor scored.
    """

    name: str
    corners: tuple[float, ...]
    difficult: bool


class Convention(NamedTuple):
    """What the numbers of VOC files mean.

    Args:
        first: The number of the first pixel. From 1 on, both ends of a box are included, so it
            covers x from xmin - 1 to xmax.
        sizes: Whether the sizes in the files are those of the images that were labelled.
    """

    first: int
    sizes: bool


def prepare_voc(src: str | Path, dst: str | Path) -> dict[str, dict[str, int]]:
    """Convert boxes in Pascal VOC's layout to COCO JSON with the images beside it.

    Writes what ``write_split`` says for every list of names in ``ImageSets/Main``. The classes are
    all that occur, in the order of their names. VOC counts pixels from 1. CVAT, which writes a
    ``labelmap.txt``, does not, and neither do others whose corners are fractions or 0; which it is
    is logged. Sizes of images are those of the XML files where they have any, so that a check of
    the data finds images that were turned or scaled since they were labelled.

    Args:
        src: The folder with ``Annotations``, ``ImageSets`` and ``JPEGImages``; only read.
        dst: The folder to write; missing, empty, or made from the same files.

    Returns:
        The counts of every list, see ``write_split``.

    Raises:
        UserError: The source has another layout or files missing, or ``dst`` holds something else.
    """
    root = Path(src)
    if lacking := [part for part in PARTS if not (root / part).is_dir()]:
        raise UserError(
            f'{root} has no {", ".join(lacking)}: give --src a folder in the layout of Pascal VOC'
        )
    splits = _read_splits(root)
    files = [file for pairs in splits.values() for _, file in pairs]
    boxes = [box for file in files for box in read_boxes(file)]
    classes = sorted({box.name for box in boxes})
    numbers = [number for box in boxes for number in box.corners]
    from_0 = (root / 'labelmap.txt').is_file() or any(n < 1 or n % 1 for n in numbers)
    print_log(f'boxes: pixels are counted from {0 if from_0 else 1}', 'current')
    reading = Convention(first=0 if from_0 else 1, sizes=True)

    def write(folder: Path, split: str, pairs: Pairs) -> dict[str, int]:
        return write_split(folder, split, pairs, root / 'JPEGImages', classes, reading)

    return convert('voc', _VERSION, root, dst, splits, write)


def write_split(
    folder: Path,
    split: str,
    pairs: Pairs,
    images_below: Path,
    classes: Sequence[str],
    reading: Convention,
) -> dict[str, int]:
    """Write ``<split>/`` with the images and ``annotations/instances_<split>.json``.

    A box without extent is dropped; one that reaches past the image is clipped, and dropped if
    nothing is left. What is marked as difficult becomes a crowd, which is neither trained nor
    scored.

    Args:
        folder: Where to write.
        split: Its name.
        pairs: (image, annotation) files.
        images_below: The folder that the images lie in; its subfolders are kept.
        classes: Names of the classes, in the order of their ids from 1.
        reading: What the XML files mean.

    Returns:
        Numbers of ``images``, ``boxes`` and boxes of each class, and of the boxes
        ``dropped_degenerate``, ``dropped_outside`` and ``clipped``.

    Raises:
        UserError: A file cannot be read, or has a class that is not among ``classes``.
    """
    annotations: list[dict[str, Any]]
    images, annotations = [], []
    counts: Counter[str | None] = Counter()
    (folder / split).mkdir()
    (folder / 'annotations').mkdir(exist_ok=True)
    for image_id, (image_file, annotation_file) in enumerate(pairs):
        height, width = read_image(image_file).shape[:2]
        if reading.sizes and (given := read_size(annotation_file)) is not None:
            width, height = given
        name = image_file.relative_to(images_below)
        (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image_file, folder / split / name)
        images.append(
            {'id': image_id, 'file_name': name.as_posix(), 'width': width, 'height': height}
        )
        for found in _known(read_boxes(annotation_file), annotation_file, classes):
            box, defect = _to_coco(found.corners, width, height, reading.first)
            counts[defect] += 1
            if box is None:
                continue
            counts[found.name] += 1
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': classes.index(found.name) + 1,
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': int(found.difficult),
                }
            )
    content = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k + 1, 'name': name} for k, name in enumerate(classes)],
    }
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    kinds = {key: counts[key] for key in (*classes, *_DEFECTS)}
    return {'images': len(images), 'boxes': len(annotations), **kinds}


def read_boxes(file: Path) -> list[Box]:
    """The objects of a VOC file.

    Raises:
        UserError: It is none.
    """
    try:
        return [
            Box(
                item.findtext('name', '').strip(),
                tuple(float(item.findtext(f'bndbox/{key}', 'none')) for key in _CORNERS),
                item.findtext('difficult', '0').strip() == '1',
            )
            for item in ElementTree.parse(file).iter('object')
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f'{file} is not a Pascal VOC annotation: {error}') from error


def read_size(file: Path) -> tuple[int, int] | None:
    """(width, height) that a VOC file gives its image; None where it gives none."""
    root = ElementTree.parse(file).getroot()
    try:
        width, height = (int(float(root.findtext(f'size/{k}', '0'))) for k in ('width', 'height'))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _known(boxes: list[Box], file: Path, classes: Sequence[str]) -> list[Box]:
    if unknown := sorted({box.name for box in boxes} - set(classes)):
        raise UserError(f'{file} has the classes {unknown}; known are {", ".join(classes)}')
    return boxes


def _read_splits(root: Path) -> dict[str, Pairs]:
    """(image, annotation) files of every list of names."""
    images = _images(root / 'JPEGImages')
    splits, missing = {}, list[str]()
    for listing in sorted((root / 'ImageSets' / 'Main').glob('*.txt')):
        try:
            text = listing.read_text(encoding='utf-8-sig')
        except UnicodeDecodeError as error:
            raise UserError(f'{listing} is not in UTF-8: save it as UTF-8 ({error})') from error
        names = [line.strip() for line in text.splitlines() if line.strip()]
        marked = [_MARKED.fullmatch(name) for name in names]
        if not names or (all(marked) and not any(name in images for name in names)):
            continue  # one class, with a 1 or a -1 for every image
        splits[listing.stem] = [
            (
                images.get(name, root / 'JPEGImages' / f'{name}.jpg'),
                root / 'Annotations' / f'{name}.xml',
            )
            for name in names
        ]
        missing += [str(f) for pair in splits[listing.stem] for f in pair if not f.is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} files that {root}/ImageSets/Main lists are missing '
            f'({name_some(missing)})'
        )
    if not splits:
        raise UserError(f'{root}/ImageSets/Main has no list of names, such as train.txt')
    return splits


def _images(folder: Path) -> dict[str, Path]:
    """The images below a folder by their names without the ending.

    Raises:
        UserError: Two have one name.
    """
    images: dict[str, Path] = {}
    for file in sorted(folder.rglob('*')):
        if file.is_file() and file.suffix.lower() in IMAGES:
            name = file.relative_to(folder).with_suffix('').as_posix()
            if (other := images.setdefault(name, file)) is not file:
                raise UserError(f'{other} and {file} have one name: keep one')
    return images


def _to_coco(
    corners: tuple[float, ...], width: int, height: int, first: int
) -> tuple[list[float] | None, str | None]:
    """COCO's [x, y, width, height] inside the image or None, and what was wrong if anything."""
    xmin, ymin, xmax, ymax = corners
    if xmax <= xmin or ymax <= ymin:
        return None, 'dropped_degenerate'
    xmin, ymin = xmin - first, ymin - first
    left, top = max(xmin, 0), max(ymin, 0)
    right, bottom = min(xmax, width), min(ymax, height)
    if right <= left or bottom <= top:
        return None, 'dropped_outside'
    clipped = (left, top, right, bottom) != (xmin, ymin, xmax, ymax)
    return [left, top, right - left, bottom - top], 'clipped' if clipped else None
