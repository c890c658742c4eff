"""Checks of images and label maps before a training starts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmse.datasets.findings import Report, find_missing
from mmse.utils.errors import UserError
from mmse.utils.text import counted, name_some, repeated


def check_seg_pairs(
    pairs: Sequence[tuple[str | Path, str | Path]],
    num_classes: int,
    ignore_index: int = 255,
    reduce_zero_label: bool = False,
    max_read: int = 500,
) -> Report:
    """Check images and label maps for semantic segmentation.

    Every file must exist; at most ``max_read`` pairs, evenly spaced, are opened.

    Args:
        pairs: (image, label map) paths.
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        ignore_index: The label that is left out of the loss.
        reduce_zero_label: Whether label 0 is left out and the others move down by one, as in
            mmseg.
        max_read: Number of pairs to open at most, at least 1.

    Raises:
        UserError: There is no pair; files are missing or not readable; a label map has more than
            one channel, another size than its image, or labels out of range.
    """
    if not pairs:
        raise UserError('there are no images: check data_root, data_prefix and the file suffixes')
    problems = [
        *counted('images are missing', find_missing(Path(image) for image, _ in pairs)),
        *counted('label maps are missing', find_missing(Path(labels) for _, labels in pairs)),
    ]
    if problems:
        raise UserError('; '.join(problems))
    count = min(max_read, len(pairs))
    chosen = [pairs[k * len(pairs) // count] for k in range(count)]
    seen: set[int] = set()
    mismatched, out_of_range = [], []
    for image_file, label_file in chosen:
        labels = _read_labels(label_file)
        with _open_image(image_file) as image:
            size = image.size
        if size != labels.shape[::-1]:
            wide, high = labels.shape[::-1]
            mismatched.append(f'{label_file} is {wide}x{high}, its image {size[0]}x{size[1]}')
        present, wrong = _sort_labels(labels, num_classes, ignore_index, reduce_zero_label)
        seen |= present
        if wrong:
            out_of_range.append(f'{label_file} has {name_some([str(v) for v in wrong], 6)}')
    low, high = (1, num_classes) if reduce_zero_label else (0, num_classes - 1)
    problems = [
        *counted('label maps differ in size from their image', mismatched),
        *counted(
            f'label maps have labels other than {low} to {high} and {ignore_index}', out_of_range
        ),
    ]
    if problems:
        raise UserError(f'of {count} label maps read, ' + '; '.join(problems))
    unseen = [f'label {label}' for label in range(num_classes) if label not in seen]
    summary = (
        f'{len(pairs)} images with label maps, {count} of them read: '
        f'{len(seen)} of {num_classes} classes seen'
    )
    warnings = counted(f'classes are in none of the {count} label maps read', unseen)
    return Report(summary, tuple(sorted(seen)), warnings)


def seg_classes(
    data_root: str | Path, seg_dir: str | Path, ignore_index: int = 255
) -> tuple[str, ...]:
    """Class names for a folder of label maps.

    They are the lines of ``classes.txt`` in ``data_root`` where there is one, in the order of the
    labels; otherwise ``class_0`` up to the highest label.

    Args:
        data_root: The data folder.
        seg_dir: The folder of label maps (.png).
        ignore_index: The label that is no class.

    Raises:
        UserError: ``classes.txt`` is empty or repeats a name, or there are no labels.
    """
    listing = Path(data_root) / 'classes.txt'
    if not listing.is_file():
        return tuple(f'class_{k}' for k in range(scan_labels(seg_dir, ignore_index)))
    names = tuple(line.strip() for line in listing.read_text().splitlines() if line.strip())
    if not names:
        raise UserError(f'{listing} is empty: write one class name per line, in label order')
    if twice := repeated('class name', names):
        raise UserError(f'{listing}: {twice[0]}')
    return names


def scan_labels(seg_dir: str | Path, ignore_index: int = 255) -> int:
    """Number of classes in a folder of label maps: the highest label plus one.

    Every map is read, because one that is skipped may hold the highest label.

    Args:
        seg_dir: The folder of label maps (.png), searched with its subfolders.
        ignore_index: The label that is no class.

    Raises:
        UserError: There are no label maps, or nothing but ``ignore_index`` in them.
    """
    files = sorted(Path(seg_dir).rglob('*.png'))
    if not files:
        raise UserError(f'{seg_dir} has no label maps (.png)')
    highest = -1
    for file in files:
        labels = _read_labels(file)
        highest = max([highest, *map(int, np.setdiff1d(labels, ignore_index))])
    if highest < 0:
        raise UserError(f'the {len(files)} label maps in {seg_dir} hold nothing but {ignore_index}')
    return highest + 1


def _open_image(file: str | Path) -> Image.Image:
    try:
        return Image.open(file)
    except OSError as error:
        raise UserError(f'{file} is not a readable image') from error


def _read_labels(file: str | Path) -> np.ndarray:
    """A label map as mmseg reads it: with Pillow, so that a palette image gives its indices."""
    with _open_image(file) as image:
        try:
            labels = np.asarray(image)
        except OSError as error:
            raise UserError(f'{file} is damaged: {error}') from error
    if labels.ndim != 2:
        raise UserError(
            f'{file} has {labels.shape[-1]} channels: a label map has one, with one label per pixel'
        )
    return labels


def _sort_labels(
    labels: np.ndarray, num_classes: int, ignore_index: int, reduce_zero_label: bool
) -> tuple[set[int], list[int]]:
    """Classes that are present, and raw labels that are out of range."""
    present, wrong = set(), []
    for raw in map(int, np.unique(labels)):
        label = raw
        if reduce_zero_label:
            label = 255 if raw in (0, 255) else raw - 1
        if 0 <= label < num_classes:
            present.add(label)
        elif label != ignore_index:
            wrong.append(raw)
    return present, wrong
