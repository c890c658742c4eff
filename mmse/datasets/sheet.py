"""The sheet of examples: scenes with their boxes, masks and names, beside their label maps."""

from collections.abc import Sequence

import cv2
import numpy as np

from mmse.datasets.scenes import CLASSES, PALETTE, Scene

_TILE = 288
_GAP = 12
_LEGEND = 52
_COLUMNS = 2
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)
_COLOURS = [(60, 60, 60), *(colour[::-1] for colour in PALETTE)]
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _bgr(label: int) -> tuple[int, int, int]:
    return _COLOURS[label + 1]


def _enlarge(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)


def _annotated(scene: Scene) -> np.ndarray:
    tile = _enlarge(scene.image)
    scale = _TILE / scene.image.shape[0]
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        large = _enlarge(mask.astype(np.uint8))
        tile[large > 0] = (0.65 * tile[large > 0] + 0.35 * np.array(_bgr(label))).astype(np.uint8)
        contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(tile, contours, -1, _bgr(label), 1, cv2.LINE_AA)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        corner = (int(x * scale), int(y * scale))
        opposite = (int((x + width) * scale) - 1, int((y + height) * scale) - 1)
        cv2.rectangle(tile, corner, opposite, _bgr(label), 2)
        (text_width, text_height), _ = cv2.getTextSize(CLASSES[label], _FONT, 0.42, 1)
        left = min(corner[0], _TILE - text_width - 6)
        top = max(corner[1] - text_height - 6, 0)
        end = (left + text_width + 5, top + text_height + 6)
        cv2.rectangle(tile, (left, top), end, _bgr(label), -1)
        place = (left + 3, top + text_height + 2)
        cv2.putText(tile, CLASSES[label], place, _FONT, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


def _semantic(scene: Scene) -> np.ndarray:
    return _enlarge(np.array(_COLOURS, np.uint8)[scene.semantic_map()])


def _legend(width: int) -> np.ndarray:
    strip = np.full((_LEGEND, width, 3), _PAPER, np.uint8)
    step = (width - 2 * _GAP) // (len(CLASSES) + 1)
    entries = zip(('background', *CLASSES), _COLOURS, strict=True)
    for place, (name, colour) in enumerate(entries):
        x = _GAP + place * step
        cv2.rectangle(strip, (x, 16), (x + 22, 38), colour, -1)
        cv2.putText(strip, name, (x + 30, 33), _FONT, 0.55, _INK, 1, cv2.LINE_AA)
    return strip


def draw_sheet(scenes: Sequence[Scene]) -> np.ndarray:
    """Draw scenes as pairs: picture with boxes, masks and names, then its label map.

    Args:
        scenes: At least one scene, each of any size.

    Returns:
        A BGR picture, uint8, with the colours' names on top.
    """
    pair = 2 * _TILE + _GAP // 2
    rows = -(-len(scenes) // _COLUMNS)
    width = _COLUMNS * (pair + _GAP) + _GAP
    sheet = np.full((_LEGEND + rows * (_TILE + _GAP), width, 3), _PAPER, np.uint8)
    sheet[:_LEGEND] = _legend(width)
    for index, scene in enumerate(scenes):
        row, column = divmod(index, _COLUMNS)
        y = _LEGEND + row * (_TILE + _GAP)
        x = _GAP + column * (pair + _GAP)
        sheet[y : y + _TILE, x : x + _TILE] = _annotated(scene)
        x += _TILE + _GAP // 2
        sheet[y : y + _TILE, x : x + _TILE] = _semantic(scene)
    return sheet
