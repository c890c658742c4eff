"""What the figures of a report share: their width, and names that are wrapped."""

import textwrap
from collections.abc import Iterable

WIDTH = 7.5  # inches
WRAP = 24  # characters


def wrap(text: str) -> str:
    """A name in lines of at most 24 characters."""
    return textwrap.fill(text, WRAP, break_on_hyphens=False)


def height(names: Iterable[str]) -> float:
    """Inches that the tallest of these names takes when it is wrapped."""
    return 0.17 * max(len(wrap(name).splitlines()) for name in names)
