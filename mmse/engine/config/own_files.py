"""How the names of images and of their label maps belong together."""

import logging
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from mmse.datasets.coco_file import read_coco
from mmse.utils.errors import UserError
from mmse.utils.text import counted, name_some

_OF_ONE_LABEL = re.compile(r'task-\d+-annotation-\d+-')
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.npy')


def image_suffixes(folder: Path, where: str) -> list[str]:
    """The endings of the images in a folder and its subfolders, as they are written.

    Args:
        folder: The folder.
        where: The key of the config that names it, for the error.

    Raises:
        UserError: There is no such folder or no image in it.
    """
    found = {Path(n).suffix for n in _files(folder, where)}
    found = {suffix for suffix in found if suffix.lower() in IMAGES}
    if not found:
        raise UserError(f'{where}: {folder} has no images ({", ".join(IMAGES)})')
    return sorted(found)


def img_folder(root: Path, img: str, ann_file: str) -> str:
    """The folder, relative to ``root``, that the file names in a COCO file count from.

    That is ``img`` where the first image lies there; otherwise the folder of ``ann_file`` or one
    above ``img``, because tools write ``images/photo.jpg`` as well as ``photo.jpg``.
    """
    if not (root / ann_file).is_file():
        return img  # what needs the file will name it
    images = read_coco(root / ann_file, without_objects=True)['images']
    if not images:
        return img
    folders = (Path(img), Path(ann_file).parent, *Path(img).parents)
    name = images[0]['file_name']
    return next((str(folder) for folder in folders if (root / folder / name).is_file()), img)


def suffix_pairs(
    img_dir: Path, seg_dir: Path, where: str, listing: Path | None = None
) -> list[tuple[str, str]]:
    """The endings of images and of their label maps, one pair for each ending of images.

    ``photo.jpg`` belongs to ``photo.png``, to ``photo_mask.png``, or, where every image is called
    ``..._leftImg8bit.png``, to ``..._gtFine_labelIds.png``: what stands before the two endings is
    the same.

    Args:
        img_dir: The folder of images, with subfolders.
        seg_dir: The folder of label maps, with the same subfolders; it may be the same folder.
        where: The key of the config that names them, for the error.
        listing: A file with the names of the images that count, without their endings, one per
            line; None for all.

    Raises:
        UserError: There are no images, or it is not clear which label map belongs to which image.
    """
    maps = [n for n in _files(seg_dir, where) if Path(n).suffix.lower() in IMAGES]
    if not maps:
        raise UserError(f'{where}: {seg_dir} has no label maps ({", ".join(IMAGES)})')
    if all(_OF_ONE_LABEL.match(Path(name).name) for name in maps):
        raise UserError(
            f'{where}: {seg_dir} has one mask for each label of an image ({maps[0]}), as Label '
            "Studio exports its brush's: merge those of an image into one label map, named like "
            'the image'
        )
    images = [n for n in _files(img_dir, where) if Path(n).suffix.lower() in IMAGES]
    if img_dir == seg_dir:
        images = [n for n in images if Path(n).suffix.lower() != '.png']
        if not images:
            raise UserError(
                f'{where}: images and label maps are in one folder, {img_dir}, and all end in .png:'
                ' put them into two folders'
            )
        maps = sorted(set(maps) - set(images)) or maps
    if listing is not None:
        images = _listed(images, listing, where)
    pairs = []
    for ending in sorted({Path(n).suffix for n in images}):
        of_ending = [n for n in images if n.endswith(ending)]
        for suffix in _endings(of_ending, ending):
            if tail := _common_tail([n[: -len(suffix)] for n in of_ending], maps, where):
                pairs.append((suffix, tail))
                break
        else:
            raise UserError(
                f'{where}: no label map in {seg_dir} begins like {of_ending[0]}; set '
                'train_dataloader.dataset.img_suffix and seg_map_suffix to the ends of the names '
                'that differ, such as .jpg and _mask.png'
            )
    if not pairs:
        raise UserError(f'{where}: {img_dir} has no images ({", ".join(IMAGES)})')
    if listing is None:
        stems = {n[: -len(end)] for n in images for end, _ in pairs if n.endswith(end)}
        for line in counted(f'label maps in {seg_dir} have no image', _without(stems, maps)):
            print_log(f'{where}: {line}', 'current', logging.WARNING)
    return pairs


def maps_of(img_dir: Path, seg_dir: Path, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The label maps that belong to images, from their folder on.

    Args:
        img_dir: The folder of images, with subfolders.
        seg_dir: The folder of label maps.
        pairs: The endings of images and of their label maps; see ``suffix_pairs``.
    """
    images = _files(img_dir, 'own_data')
    named = {n[: -len(end)] + tail for n in images for end, tail in pairs if n.endswith(end)}
    return sorted(named & set(_files(seg_dir, 'own_data')))


def _without(stems: set[str], maps: Sequence[str]) -> list[str]:
    """The label maps that no image has a name for, up to some ending."""
    return [
        name
        for name in maps
        if not any(letter in '._-' and name[:i] in stems for i, letter in enumerate(name))
    ]


def _listed(images: Sequence[str], listing: Path, where: str) -> list[str]:
    """The images whose names, up to some ending, are lines of a file."""
    try:
        names = {line.strip() for line in listing.read_text(encoding='utf-8').splitlines()} - {''}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{where}.ann_file: {listing} cannot be read: {error}') from error
    if with_ending := sorted(n for n in names if Path(n).suffix.lower() in IMAGES):
        raise UserError(
            f'{where}.ann_file: {listing} lists {with_ending[0]}: write names without their ending'
        )
    listed = [n for n in images if Path(n).with_suffix('').as_posix() in names]
    # Where all end in _leftImg8bit.png, say, lists may stop before it; all images count then.
    return listed or list(images)


def _files(folder: Path, where: str) -> list[str]:
    """The files below a folder, without the hidden ones, which MMEngine does not list either."""
    if not folder.is_dir():
        raise UserError(f'{where}: there is no folder {folder}')
    return sorted(
        os.path.relpath(Path(parent, name), folder)
        for parent, folders, names in os.walk(folder, followlinks=True)
        if not Path(parent).name.startswith('.') or Path(parent) == folder
        for name in names
        if not name.startswith('.')
    )


def _endings(names: Sequence[str], ending: str) -> list[str]:
    """The file ending, and the last words that all names share, such as ``_leftImg8bit.png``."""
    stem = Path(names[0]).stem
    words = [stem[i:] + ending for i, letter in enumerate(stem) if letter in '_-.' and i]
    return [ending, *(w for w in reversed(words) if all(n.endswith(w) for n in names))]


def _common_tail(stems: Sequence[str], maps: Sequence[str], where: str) -> str | None:
    """What follows every stem in the names of the label maps; None if some stem has no map."""
    ordered = sorted(maps)
    tails: Counter[str] = Counter()
    for stem in stems:
        at = bisect_left(ordered, stem)
        while at < len(ordered) and ordered[at].startswith(stem):
            if (tail := ordered[at][len(stem) :])[:1] in ('.', '_', '-'):
                tails[tail] += 1
            at += 1
    whole = [tail for tail, count in tails.items() if count == len(stems)]
    for tail in ('.png', '.PNG'):
        if tail in whole:
            return tail
    if len(whole) > 1:
        raise UserError(
            f'{where}: images have several label maps, with the endings {name_some(sorted(whole))}:'
            ' set train_dataloader.dataset.seg_map_suffix to the one to train on'
        )
    if whole:
        return whole[0]
    # Some maps are missing, which the check of the data will name.
    most = tails.most_common(1)
    return most[0][0] if most and most[0][1] * 2 >= len(stems) else None
