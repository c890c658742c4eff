"""The look of every figure, and how a figure becomes a file."""

import base64
import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from mmse.utils.files import replacing

# The figures stay readable in greyscale; templates/base.html.jinja has the same colours.
INK, PALE, SHADE, ACCENT = '#1b2a3a', '#9aa7b4', '#eef1f4', '#b4531f'
DPI = 140
# The keys have a type of their own from matplotlib 3.11 on only.
_STYLE: dict[Any, Any] = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': PALE,
    'axes.formatter.useoffset': False,
    'axes.labelcolor': INK,
    'axes.titlecolor': INK,
    'axes.titlelocation': 'left',
    'axes.titlesize': 'medium',
    'grid.color': PALE,
    'grid.alpha': 0.35,
    'legend.frameon': False,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'figure.constrained_layout.use': True,
}


def styled() -> AbstractContextManager[None]:
    """The context in which a figure is both drawn and written."""
    context: AbstractContextManager[None] = matplotlib.rc_context(_STYLE)
    return context


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG on white, whole or not at all.

    It has a palette of 256 colours, which makes the file a third as large.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format='png', dpi=DPI, facecolor='white')
    with replacing(path) as part:
        Image.open(drawn).convert('RGB').quantize(256).save(part, 'PNG', dpi=(DPI, DPI))


def base64_of(path: Path) -> str:
    """A file's bytes as a page holds them in itself."""
    return base64.b64encode(path.read_bytes()).decode()
