"""Images that EXIF turns: whether annotations lie on the image as shown or as stored.

Sizes tell it where a quarter turn swaps width and height. For half turns, mirrored and square
images they do not, but the annotations' borders do: they follow the image's own edges in one of
the two orientations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mmse.datasets.images import Sample
from mmse.datasets.reading import Reading
from mmse.utils.text import counted

# How mmcv reads an image: as it is shown, or as it is stored.
_MODES = ('color', 'color_ignore_orientation')
_MOST_COMPARED = 50
# How much stronger edges must be on borders in one orientation. Three random images of CamVid or
# BCCD never reached it in the wrong one; one of BCCD's, whose boxes are loose, did in 1.6 %.
_CLEAR, _CLEAR_IN_FEW, _FEW = 1.25, 1.6, 3
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@dataclass
class Turned:
    """Images with an EXIF orientation, and how well annotations fit them either way.

    Args:
        reading: The data set.
    """

    reading: Reading
    names: list[str] = field(default_factory=list)
    as_read: float = 0.0
    otherwise: float = 0.0
    compared: int = 0
    turns: bool = True

    def see(self, sample: Sample) -> None:
        """Take one image into account, if it has an EXIF orientation."""
        if sample.header is None or sample.header.orientation == 1:
            return
        orientation = sample.header.orientation
        self.names.append(f'{sample.item["img_path"]}: {orientation}')
        loaded = sample.loaded or {}
        if 'img' not in loaded or self.compared >= _MOST_COMPARED:
            return
        image = grey(loaded['img'])
        if (stored := read_stored(sample.item['img_path'])) is None:
            return
        self.turns = is_turned(image, stored, orientation)
        other = stored if self.turns else turn(stored, orientation)
        borders = _borders(loaded, image.shape)
        if other.shape != image.shape or not borders.any():
            return
        self.compared += 1
        self.as_read += _contrast(image, borders)
        self.otherwise += _contrast(other, borders)

    def problems(self) -> list[str]:
        """A fault if the annotations clearly fit the other orientation."""
        if not self.compared or self.otherwise < self._clear() * self.as_read:
            return []
        mode = _MODES[self.turns]
        how = ('turned when they are read', 'stored') if self.turns else ('read as stored', 'shown')
        return [
            f'{self._count()} and are {how[0]}, but the borders of their annotations follow the '
            f'image as it is {how[1]}: set {self.reading.head.place}.color_type={mode}'
        ]

    def warnings(self) -> list[str]:
        """A word on images that are turned, and on what could not be told."""
        if not self.names or not self.turns:
            return []
        sentence = f'{self._count()} and are turned when they are read'
        if self.compared and self.as_read < self._clear() * self.otherwise:
            sentence += (
                '; look whether their annotations lie on the image as it is shown; if they lie on '
                f'the stored one, set {self.reading.head.place}.color_type=color_ignore_orientation'
            )
        return [sentence]

    def _clear(self) -> float:
        return _CLEAR if self.compared >= _FEW else _CLEAR_IN_FEW

    def _count(self) -> str:
        return counted('images have an EXIF orientation', self.names)[0]


@dataclass
class QuarterTurned:
    """Images whose annotations have width and height the other way round.

    Args:
        place: Place of the transform that loads images.
    """

    place: str
    names: list[str] = field(default_factory=list)
    as_stored: bool = False

    def see(self, sample: Sample, wide_high: tuple[int, int], words: str) -> bool:
        """Take one image into account, if EXIF explains the size of its annotations."""
        if sample.header is None or sample.header.orientation < 5 or sample.size is None:
            return False
        if wide_high != sample.size[::-1]:
            return False
        self.as_stored = sample.size == sample.header.size
        self.names.append(words)
        return True

    def sentence(self, annotations: str) -> str:
        """What was found.

        Args:
            annotations: What lies on the other image, such as ``their label maps lie on``.
        """
        read = 'read as stored' if self.as_stored else 'turned when they are read'
        other = 'shown' if self.as_stored else 'stored'
        what = f'images have an EXIF orientation and are {read}, but {annotations} the image as it '
        return counted(f'{what}is {other}', self.names)[0]

    def remedy(self) -> str:
        """The key that reads images the other way."""
        return f'set {self.place}.color_type={_MODES[not self.as_stored]}'


def turn(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image, (H, W), as it is shown, for EXIF orientations 1 to 8."""
    return _TURNS[orientation](stored)


def is_turned(image: np.ndarray, stored: np.ndarray, orientation: int) -> bool:
    """Whether an image was turned when it was read, told by its pixels.

    Args:
        image: The image as read, (H, W).
        stored: The image as stored, (H, W) or (W, H).
        orientation: Its EXIF orientation.
    """
    shown = turn(stored, orientation)
    if shown.shape != stored.shape:
        return image.shape == shown.shape
    return float(np.abs(image - shown).mean()) < float(np.abs(image - stored).mean())


def grey(image: np.ndarray) -> np.ndarray:
    """The mean of an image's channels, (H, W), from 0 to 1."""
    mean = image.astype(np.float32)
    mean = mean.mean(axis=2) if mean.ndim == 3 else mean
    low, high = float(mean.min()), float(mean.max())
    return (mean - low) / max(high - low, 1e-6)


def read_stored(path: str) -> np.ndarray | None:
    """An image as stored, grey; None if OpenCV cannot read it."""
    stored = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if stored is None else grey(stored)


def _borders(loaded: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Where label maps or boxes have their borders: a mask of the image's shape."""
    borders = np.zeros(shape, np.uint8)
    labels = loaded.get('gt_seg_map')
    if labels is not None and labels.shape == shape:
        borders[1:] |= labels[1:] != labels[:-1]
        borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    elif labels is None and (boxes := loaded.get('gt_bboxes')) is not None:
        for x1, y1, x2, y2 in np.asarray(getattr(boxes, 'tensor', boxes)).round().astype(int):
            cv2.rectangle(borders, (int(x1), int(y1)), (int(x2) - 1, int(y2) - 1), 1)
    return borders.astype(bool)


def _contrast(image: np.ndarray, borders: np.ndarray) -> float:
    """How much stronger the image's edges are on the borders than on the average."""
    edges = np.zeros_like(image)
    edges[1:] = np.abs(np.diff(image, axis=0))
    edges[:, 1:] = np.maximum(edges[:, 1:], np.abs(np.diff(image, axis=1)))
    edges = cv2.dilate(edges, np.ones((3, 3), np.uint8))
    return float(edges[borders].mean() / max(float(edges.mean()), 1e-6))
