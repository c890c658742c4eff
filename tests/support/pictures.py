"""Where a picture of predictions shows what."""

import cv2
import numpy as np

GAP = 8
READABLE = 400


def enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """An image as it is drawn on: 400 pixels or more on the longer side; and the factor."""
    factor = -(-READABLE // max(image.shape[:2]))
    size = (factor * image.shape[1], factor * image.shape[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), factor


def pairs_of(sheet: np.ndarray, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """The pictures of a sheet, one below the other with white gaps."""
    height, width = shape
    assert sheet.shape == (count * (height + GAP) + GAP, width + 2 * GAP, 3)
    tops = [GAP + i * (height + GAP) for i in range(count)]
    return [sheet[y : y + height, GAP : GAP + width] for y in tops]


def edge(box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a box's left, right and lower edge, away from its corners."""
    x1, y1, x2, y2 = box
    rows, columns = np.arange(y1 + 3, y2 - 2), np.arange(x1 + 3, x2 - 2)
    return (
        np.concatenate([rows, rows, np.full_like(columns, y2)]),
        np.concatenate([np.full_like(rows, x1), np.full_like(rows, x2), columns]),
    )
