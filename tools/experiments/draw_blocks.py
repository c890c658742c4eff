"""Draws the pictures of docs/config.md: a residual block, with the parts of an option marked."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OUT = Path('docs/images')
INK, MARK = '#1b2a3a', '#ffe08a'
# Name: text, centre x, centre y, width. The branch runs along the top, the excitation below it.
BOXES = {
    'branch': ('convs, norms', 1.5, 3.0, 1.7),
    'times': (r'$\times$', 9.25, 3.0, 0.5),
    'plus': ('+', 10.15, 3.0, 0.5),
    'relu': ('ReLU', 11.1, 3.0, 0.9),
    'avg': ('mean', 3.45, 1.95, 0.9),
    'max': ('max', 3.45, 1.25, 0.9),
    'fusion': ('fuse', 4.7, 1.6, 0.8),
    'fc1': ('fc1', 5.65, 1.6, 0.75),
    'act': ('act', 6.55, 1.6, 0.7),
    'fc2': ('fc2', 7.45, 1.6, 0.75),
    'gate': ('gate', 8.35, 1.6, 0.75),
    'gain': ('gain', 9.25, 1.6, 0.75),
}
ARROWS = [
    *(('branch', 'times'), ('times', 'plus'), ('plus', 'relu'), ('fusion', 'fc1')),
    *(('fc1', 'act'), ('act', 'fc2'), ('fc2', 'gate'), ('gate', 'gain')),
]
LABELS = [
    *(('shortcut', 5.0, 3.85), ('residual branch', 1.5, 2.5), ('recalibrate', 9.25, 3.4)),
    *(('squeeze', 3.45, 0.78), ('excitation', 6.55, 1.1)),
]
# What each picture marks, the texts that it puts into boxes, and what it says below.
PICTURES: dict[str, tuple[set[str], dict[str, str], str]] = {
    'block': (set(), {}, 'out = ReLU(q · x + shortcut): the shortcut is never gated'),
    'squeeze': (
        {'avg', 'max'},
        {},
        "'avg': mean over the map; 'max': maximum; 'avg+max': both (default)",
    ),
    'fusion': (
        {'fusion'},
        {},
        "'softmax' (default): p·mean + (1-p)·max, p learned, 1/2 at first; 'sum': mean + max",
    ),
    'reduction': (
        {'fc1', 'fc2'},
        {'fc1': 'C→h', 'fc2': 'h→C'},
        'h = max(min_hidden, C // reduction) hidden channels: 16 and 4 by default',
    ),
    'act': ({'act'}, {}, "'silu' (default); 'relu'"),
    'gate': (
        {'gate'},
        {'gate': 'g(z)'},
        "'sigmoid' (default): 1 / (1 + exp(-z)); 'hardsigmoid': min(max(z + 3, 0), 6) / 6",
    ),
    'temperature': (
        {'gate'},
        {'gate': 'g(z/T)'},
        'T > 1 flattens the gate, T < 1 sharpens it; learnable_temperature learns T > 0',
    ),
    'residual': (
        {'gain'},
        {'gain': 'q'},
        'False (default): q = g, between 0 and 1; True: q = 1 + alpha·g, above 1 if alpha > 0',
    ),
    'alpha': (
        {'gain'},
        {'gain': r'1+$\alpha$g'},
        'the most that residual gating adds, 1 by default; learnable_alpha: one for each block',
    ),
    'bias': (
        {'fc1', 'fc2'},
        {'fc1': 'W₁s+b₁', 'fc2': 'W₂a+b₂'},
        'True (default): fc1 and fc2 have biases; False: they have none',
    ),
}


def draw(marked: set[str], texts: dict[str, str], caption: str) -> plt.Figure:
    """One block, with some of its boxes marked."""
    figure, axes = plt.subplots(figsize=(8.2, 3.1))
    axes.set(xlim=(0, 11.9), ylim=(0.1, 4.2))
    axes.axis('off')
    for name, (text, x, y, width) in BOXES.items():
        axes.text(
            *(x, y, texts.get(name, text)),
            ha='center',
            va='center',
            fontsize=9 if len(texts.get(name, text)) < 6 or name == 'branch' else 7.5,
            color=INK,
        )
        face = MARK if name in marked else 'white'
        corner = (x - width / 2, y - 0.25)
        axes.add_patch(plt.Rectangle(corner, width, 0.5, fc=face, ec=INK, lw=1.1, zorder=-1))
    for start, end in ARROWS:
        arrow(axes, right_of(start), left_of(end))
    arrow(axes, (4.1, 1.6), left_of('fusion'))
    for squeeze in ('avg', 'max'):
        x, y = right_of(squeeze)
        axes.plot((x, 4.1, 4.1), (y, y, 1.6), color=INK, lw=1.1, zorder=-2)
        axes.plot((2.7, 2.7), (3.0, y), color=INK, lw=1.1, zorder=-2)
        arrow(axes, (2.7, y), left_of(squeeze))
    arrow(axes, (9.25, 1.85), (9.25, 2.75))
    axes.plot((0.35, 0.35), (3.0, 3.75), color=INK, lw=1.1)
    axes.plot((0.35, 10.15), (3.75, 3.75), color=INK, lw=1.1)
    arrow(axes, (10.15, 3.75), (10.15, 3.25))
    arrow(axes, (0.1, 3.0), left_of('branch'))
    arrow(axes, right_of('relu'), (11.85, 3.0))
    for text, x, y in LABELS:
        axes.text(x, y, text, fontsize=8, color=INK, ha='center')
    axes.text(2.85, 3.1, 'x', fontsize=9, color=INK, style='italic')
    axes.text(5.9, 0.25, caption, fontsize=9, color=INK, ha='center')
    return figure


def left_of(name: str) -> tuple[float, float]:
    _, x, y, width = BOXES[name]
    return x - width / 2, y


def right_of(name: str) -> tuple[float, float]:
    _, x, y, width = BOXES[name]
    return x + width / 2, y


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {'arrowstyle': '-|>', 'color': INK, 'lw': 1.1, 'shrinkA': 0}
    axes.annotate('', end, start, arrowprops={**style, 'shrinkB': 0})


def main() -> None:
    plt.rcParams['svg.hashsalt'] = 'mmse'
    plt.rcParams['svg.fonttype'] = 'none'
    for name, picture in PICTURES.items():
        figure = draw(*picture)
        figure.savefig(
            OUT / f'option_{name}.svg',
            bbox_inches='tight',
            facecolor='white',
            metadata={'Date': None},
        )
        plt.close(figure)


if __name__ == '__main__':
    main()
