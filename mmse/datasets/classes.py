"""Class names of a folder of label maps."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.fileio import list_dir_or_file
from PIL import Image

from mmse.datasets.cache import recall, remember
from mmse.datasets.findings import progress, refuse
from mmse.datasets.headers import read_header
from mmse.datasets.listings import find_listing
from mmse.datasets.segmentation import COLOURS, count_labels, file_fault
from mmse.utils.errors import UserError
from mmse.utils.text import counted, name_some

_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif', '.jpg', '.jpeg', '.webp')


def seg_classes(
    data_root: str | Path,
    seg_dir: str | Path,
    ignore_index: int = 255,
    maps: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Class names for a folder of label maps.

    They are those that a file such as ``classes.txt`` lists, see ``find_listing``; otherwise
    ``class_0`` up to the highest label.

    Args:
        data_root: The data folder.
        seg_dir: The folder of label maps, searched with its subfolders.
        ignore_index: The label that is no class.
        maps: The names of the label maps that count, from ``seg_dir`` on; None for all.

    Raises:
        UserError: The list is empty, repeats a name or has another form, or the labels cannot be
            those of classes.
    """
    if (listing := find_listing(data_root, seg_dir)) is not None:
        return listing.names
    return tuple(f'class_{k}' for k in range(scan_labels(seg_dir, ignore_index, maps)))


def scan_labels(
    seg_dir: str | Path, ignore_index: int = 255, maps: Sequence[str] | None = None
) -> int:
    """Number of classes in a folder of label maps: the highest label plus one.

    Every map is read, because one that is skipped may hold the highest label.

    Args:
        seg_dir: The folder of label maps, searched with its subfolders; hidden files do not count.
        ignore_index: The label that is no class.
        maps: The names of the label maps that count, from ``seg_dir`` on; None for all.

    Raises:
        UserError: There are no label maps, one cannot be read, or their labels cannot be those of
            classes: one only, or grey values.
    """
    if maps is None:
        there = sorted(list_dir_or_file(str(seg_dir), list_dir=False, recursive=True))
        maps = [name for name in there if name.lower().endswith(_SUFFIXES)]
    files = [Path(seg_dir, name) for name in maps]
    if not files:
        raise UserError(f'{seg_dir} has no label maps ({", ".join(_SUFFIXES)})')
    stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    identity = ['labels', os.path.abspath(seg_dir), stats]
    try:
        found = set(recall(identity))
    except (ValueError, TypeError):
        found = _labels_of(files, str(seg_dir))
        remember(identity, sorted(found))
    return _number_of_classes(found, ignore_index, f'the {len(files)} label maps in {seg_dir}')


def _labels_of(files: Sequence[Path], folder: str) -> set[int]:
    """All labels of label maps, each of which is read."""
    found: set[int] = set()
    faults: dict[str, list[str]] = {}
    for file in progress(files, f'labels in {folder}'):
        labels = _read_labels(file)
        fault = COLOURS if labels.ndim != 2 else file_fault(str(file))
        if fault is not None:
            faults.setdefault(fault, []).append(str(file))
        else:
            found.update(count_labels(labels))
    refuse(folder, [s for what, which in faults.items() for s in counted(what, which)])
    return found


def _number_of_classes(found: set[int], ignore_index: int, which: str) -> int:
    classes = sorted(found - {ignore_index})
    if not classes:
        raise UserError(f'{which} hold nothing but {ignore_index}')
    highest = classes[-1]
    if len(classes) == 1 and ignore_index in found:
        raise UserError(
            f'{which} hold only {highest} and {ignore_index}, and {ignore_index} is left out of '
            f'the loss, so there is nothing to tell apart: if {ignore_index} is a class, write its '
            'number instead, such as 1'
        )
    if 2 * len(classes) < highest + 1:
        values = [str(v) for v in classes]
        raise UserError(
            f'{which} hold the labels {name_some(values, 12)}, which are no numbers of classes but '
            f'grey values or ids: number the classes from 0 to {len(classes) - 1}, or name all '
            f'{highest + 1} in classes.txt'
        )
    return highest + 1


def _read_labels(file: Path) -> np.ndarray:
    """A label map as mmseg reads it: with Pillow, so that a palette image gives its indices."""
    try:
        with Image.open(file) as image:
            return np.asarray(image)
    except OSError as error:
        state = 'damaged' if read_header(file) else 'no readable image'
        raise UserError(f'{file} is {state}: {error}') from error
