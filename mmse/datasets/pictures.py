"""The images of a data set as the loader gives them: readable, of which depth and channels."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmse.datasets.findings import find_missing
from mmse.datasets.headers import is_local
from mmse.datasets.images import Sample
from mmse.datasets.reading import Reading
from mmse.utils.text import counted

_FEW_LEVELS = 64
_MOST_COMPARED = 20


@dataclass
class Pictures:
    """What was found about images, one after another.

    Args:
        reading: The data set.
    """

    reading: Reading
    decoded: int = 0
    unreadable: list[str] = field(default_factory=list)
    channels: Counter[int] = field(default_factory=Counter)
    shapes: dict[tuple[int, int], int] = field(default_factory=dict)
    deep: list[str] = field(default_factory=list)
    levels: int = 0
    compared: int = 0
    highest: int = 0

    def see(self, sample: Sample) -> None:
        """Take one image into account."""
        name = str(sample.item.get('img_path'))
        if sample.fault is not None:
            self.unreadable.append(f'{name}: {sample.fault}')
            return
        if sample.size is not None:
            self.shapes.setdefault(sample.size, sample.index)
        image = (sample.loaded or {}).get('img')
        if image is not None:
            self.decoded += 1
            self.channels[image.shape[2] if image.ndim == 3 else 1] += 1
        if sample.header is not None and sample.header.bits > 8:
            if image is None:
                self.deep.append(name)
            elif image.dtype == np.uint8:
                self.deep.append(name)
                self._compare_levels(name, image)

    def problems(self) -> list[str]:
        """The faults that stop a training."""
        found = counted('images cannot be read', self.unreadable)
        if len(self.channels) > 1:
            kinds = ' and '.join(f'{n} of {c}' for c, n in sorted(self.channels.items()))
            found.append(
                f'images have different numbers of channels as they are loaded ({kinds}): set '
                f'{self.reading.head.place}.color_type=color, or convert them'
            )
        if self.compared and self.levels <= _FEW_LEVELS < self.highest:
            found.append(
                f'{len(self.deep)} images have 16 bits per channel with values up to '
                f'{self.highest}, of which the loader keeps the upper 8 bits, so that '
                f'{self.levels} levels are left: {self._how_to_keep()}'
            )
        return found

    def warnings(self) -> list[str]:
        """What is worth knowing and stops nothing."""
        found = counted('images have 16 bits per channel', self.deep if self.compared else [])
        return [
            f'{sentence}, of which the loader keeps the upper 8 bits: {self._how_to_keep()}'
            for sentence in found
        ]

    def summary(self) -> str:
        """How many images were decoded, and their sizes."""
        count = len(self.reading.items)
        decoded = f'{self.decoded} decoded, all headers read'
        return f'{count} images ({"all decoded" if self.decoded >= count else decoded})'

    def _compare_levels(self, name: str, image: np.ndarray) -> None:
        """How many levels are left of a deep image; compared for the first few."""
        if self.compared >= _MOST_COMPARED:
            return
        raw = cv2.imread(name, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if raw is None or raw.dtype == np.uint8:
            return
        self.compared += 1
        self.levels = max(self.levels, len(np.unique(image)))
        self.highest = max(self.highest, int(raw.max()))

    def _how_to_keep(self) -> str:
        return (
            f'convert them to 8 bits, or set {self.reading.head.place}.color_type=unchanged and '
            'mean and std of model.data_preprocessor for their values'
        )


def missing(reading: Reading) -> list[str]:
    """Sentences about images and label maps that are not there."""
    files: dict[str, list[str]] = {'images': [], 'label maps': []}
    for item in reading.items:
        if is_local(item.get('img_path')):
            files['images'].append(item['img_path'])
        if is_local(item.get('seg_map_path')) and reading.head.labels.transforms:
            files['label maps'].append(item['seg_map_path'])
    found = []
    for what, paths in files.items():
        if names := find_missing(paths):
            (sentence,) = counted(f'{what} are missing', names)
            found.append(sentence + _where_it_is(names[0], reading))
    return found


def _where_it_is(name: str, reading: Reading) -> str:
    """The end of a sentence about a missing file, if a file of the same name is there."""
    folder = str((reading.dataset.data_prefix or {}).get('img', ''))
    alone = re.split(r'[/\\]', name)[-1]
    if folder and Path(folder, alone).is_file():
        return (
            f', but {alone} is in {folder}: take the folders out of file_name, such as by: '
            rf"""sed -i 's#\("file_name": *"\)[^"]*[/\]#\1#g' {reading.dataset.ann_file}"""
        )
    like = _file_like(Path(alone), reading.cfg.get('data_root'))
    return f', but there is {like}' if like else ''


def _file_like(file: Path, root: str | None) -> str | None:
    """A file below the data root that has the same name but for upper and lower case."""
    for parent, _, names in os.walk(root or '.'):
        for name in names:
            if name.lower() == file.name.lower():
                return os.path.join(parent, name)
    return None
