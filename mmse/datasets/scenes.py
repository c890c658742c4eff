"""Scenes of the built-in data: six shapes over textured backgrounds, with occlusion and clutter.

The outline tells the classes apart, and colour is a hint: objects are strong in colour and lean to
the hue of their class, backgrounds and clutter are pale; textures, sizes and angles are drawn from
the same distributions for all six. Everything is drawn as a coverage map at four times the
resolution and averaged down, so that picture and mask come from the same pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
PALETTE = [
    (230, 75, 53),
    (77, 187, 213),
    (0, 160, 135),
    (243, 177, 49),
    (145, 97, 203),
    (240, 120, 180),
]

_SUPERSAMPLE = 4
_MIN_VISIBLE = 0.45
_MIN_CONTRAST = 70.0
_LARGE_CHANCE = 0.3
_TURN = np.pi / 8
# Degrees; hues of neighbouring classes are 60 apart, so colour is a hint and no label.
_HUE_SPREAD = 20.0


@dataclass
class Scene:
    """One picture with what is visible in it.

    Args:
        image: BGR picture, uint8, (size, size, 3).
        labels: Class index of every instance, 0 to 5.
        masks: Visible pixels of every instance, bool, (size, size); they do not overlap.
    """

    image: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]

    def semantic_map(self) -> np.ndarray:
        """Label map, uint8, (size, size): 0 is background, ``1 + label`` a shape."""
        semantic = np.zeros(self.image.shape[:2], np.uint8)
        for label, mask in zip(self.labels, self.masks, strict=True):
            semantic[mask] = label + 1
        return semantic


def _ray(angles: np.ndarray, radii: float | np.ndarray = 1.0) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))  # type: ignore[no-any-return]


def _unit_outlines() -> list[list[np.ndarray]]:
    """Outlines in the order of ``CLASSES``, centred, of area 1; a second contour is a hole."""
    corner = np.pi / 4 + np.arange(4) * np.pi / 2
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    arm = 0.3
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    turns = [np.array([[0, 1], [-1, 0]])] * 4
    cross = np.concatenate([quarter @ np.linalg.matrix_power(t, k) for k, t in enumerate(turns)])
    outlines = [
        [_ray(turn)],
        [_ray(corner)],
        [_ray(np.arange(3) * 2 * np.pi / 3)],
        [_ray(np.arange(10) * np.pi / 5, np.tile([1.0, 0.45], 5))],
        [cross],
        [_ray(turn), _ray(turn, 0.5)],
    ]
    sides = [np.sqrt(_area(o[0]) - sum(map(_area, o[1:]))) for o in outlines]
    return [[c / side for c in o] for o, side in zip(outlines, sides, strict=True)]


_OUTLINES = _unit_outlines()


def _coverage(size: int, draw: Callable[[np.ndarray], object]) -> np.ndarray:
    """Share of every pixel that ``draw`` covers, float32 in [0, 1], (size, size)."""
    canvas = np.zeros((size * _SUPERSAMPLE, size * _SUPERSAMPLE), np.uint8)
    draw(canvas)
    covered = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return covered.astype(np.float32) / 255


def _draw_shape(size: int, label: int, centre: np.ndarray, side: float, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    contours = [
        np.round((outline @ turn * side + centre) * _SUPERSAMPLE).astype(np.int32)
        for outline in _OUTLINES[label]
    ]
    return _coverage(size, lambda canvas: cv2.fillPoly(canvas, contours, 255))


def _draw_clutter(rng: np.random.Generator, size: int, thin: bool) -> np.ndarray:
    """A stroke, an open arc or an elongated blob: nothing that could pass for a shape."""
    full = size * _SUPERSAMPLE
    centre = [int(v) for v in rng.uniform(0, full, 2)]
    width = int(rng.uniform(0.006, 0.012 if thin else 0.025) * full) + 1
    kind = rng.integers(2 if thin else 3)
    if kind == 0:
        walk = centre + np.cumsum(rng.normal(0, 0.13 * full, (rng.integers(2, 6), 2)), axis=0)
        points = [np.round(walk).astype(np.int32)]
        return _coverage(size, lambda c: cv2.polylines(c, points, False, 255, width))
    tilt = float(rng.uniform(0, 360))
    if kind == 1:
        radius = int(rng.uniform(0.05, 0.3) * full)
        sweep = float(rng.uniform(40, 150))
        return _coverage(
            size, lambda c: cv2.ellipse(c, centre, (radius, radius), tilt, 0, sweep, 255, width)
        )
    length = rng.uniform(0.03, 0.12) * full
    axes = (int(length), int(length / rng.uniform(3, 5)) + 1)
    return _coverage(size, lambda c: cv2.ellipse(c, centre, axes, tilt, 0, 360, 255, -1))


def _colour(rng: np.random.Generator, label: int | None = None) -> np.ndarray:
    """A BGR colour, float32: strong and near the hue of ``label``, or pale and of any hue."""
    if label is None:
        hue, saturation, value = rng.uniform(0, 360), rng.uniform(0, 0.4), rng.uniform(0.15, 0.9)
    else:
        hue = (360 * label / len(CLASSES) + rng.normal(0, _HUE_SPREAD)) % 360
        saturation, value = rng.uniform(0.55, 1), rng.uniform(0.5, 1)
    hsv = np.array([[[hue, saturation, value]]])
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2BGR)[0, 0] * 255  # type: ignore[no-any-return]


def _texture(rng: np.random.Generator, height: int, width: int, strength: float) -> np.ndarray:
    """Zero-mean variation of brightness and colour, float32, (height, width, 3)."""
    kind = rng.integers(4)
    if kind == 0:
        cells = int(rng.integers(3, 12))
        noise = rng.normal(0, 0.6 * strength, (cells, cells, 3)).astype(np.float32)
        return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, phase = (float(v) for v in rng.uniform(0, 2 * np.pi, 2))
    along = math.cos(angle) * x + math.sin(angle) * y
    frequency = float(rng.uniform(8, 50))
    wave = along if kind == 1 else np.sin(frequency * along + phase)
    if kind == 3:
        wave = wave * np.sin(frequency * (math.cos(angle) * y - math.sin(angle) * x))
    channels = strength * rng.uniform(0.4, 1, 3)
    return wave[..., None] * channels.astype(np.float32)


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    alpha: np.ndarray,
    strength: float = 0.0,
    label: int | None = None,
) -> None:
    """Fill ``alpha`` of ``image``, in place, with a colour that stands out from what is there."""
    x, y, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
    if width == 0:
        return
    alpha = alpha[y : y + height, x : x + width, None]
    patch = image[y : y + height, x : x + width]
    behind = (patch * alpha).sum(axis=(0, 1)) / alpha.sum()
    for _ in range(16):
        colour = _colour(rng, label)
        if np.linalg.norm(colour - behind) >= _MIN_CONTRAST:
            break
    fill = colour + _texture(rng, height, width, strength) if strength else colour
    patch += alpha * (fill - patch)


def _sides(rng: np.random.Generator, size: int) -> np.ndarray:
    """Square roots of the areas of a scene's objects in pixels, from back to front."""
    if rng.random() < _LARGE_CHANCE:
        few = np.exp(rng.uniform(np.log(0.11), np.log(0.35), rng.integers(1, 4)))
        return size * np.append(rng.uniform(0.8, 1.0), few)
    sides = np.exp(rng.uniform(np.log(0.11), np.log(0.6), rng.integers(2, 7)))
    return size * sides[np.argsort(-sides * np.exp(rng.normal(0, 0.4, len(sides))))]


def draw_scene(rng: np.random.Generator, size: int, sides: Sequence[float] | None = None) -> Scene:
    """Draw one scene.

    Every object keeps at least 45% of its full area visible, whatever lies over it and wherever
    the border cuts it: a place that would hide more of it, or of another one, is not taken.

    Args:
        rng: Where all that is random comes from.
        size: Side of the square picture in pixels, at least 32.
        sides: Square roots of the objects' areas in pixels, from back to front; drawn if not given.
            An object for which no place is found is left out.
    """
    image = _colour(rng) + _texture(rng, size, size, rng.uniform(10, 45))
    image += _texture(rng, size, size, rng.uniform(5, 25))
    for _ in range(rng.integers(2, 8)):
        _paint(rng, image, _draw_clutter(rng, size, thin=False))
    front = [_draw_clutter(rng, size, thin=True) for _ in range(rng.integers(0, 4))]
    hidden = np.zeros((size, size), bool)
    for alpha in front:
        hidden |= alpha >= 0.5

    labels: list[int] = []
    masks: list[np.ndarray] = []
    needed: list[float] = []
    for side in _sides(rng, size) if sides is None else sides:
        label = int(rng.integers(len(CLASSES)))
        margin = min(0.4 * side, 0.46 * size)
        for _ in range(8):
            centre = rng.uniform(margin, size - margin, 2)
            alpha = _draw_shape(size, label, centre, side, rng.uniform(-_TURN, _TURN))
            solid = alpha >= 0.5
            visible = [*(mask & ~solid for mask in masks), solid & ~hidden]
            wanted = [*needed, _MIN_VISIBLE * side**2]
            if all(v.sum() >= w for v, w in zip(visible, wanted, strict=True)):
                _paint(rng, image, alpha, strength=rng.uniform(0, 35), label=label)
                labels, masks, needed = [*labels, label], visible, wanted
                break
    for alpha in front:
        _paint(rng, image, alpha)
    image += rng.uniform(1, 7) * rng.standard_normal(image.shape, np.float32)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), labels, masks)
