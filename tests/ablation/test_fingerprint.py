"""Which changes of the source make trials another question, and which do not."""

import pytest

from mmse.ablation.fingerprint import SHAPING, code_fingerprint, computation

SOURCE = '''
"""A module."""

import math
from typing import Any


class Kind:
    """A class."""

    size: int = 3

    def area(self, r):
        """An area."""
        values = [r]
        return math.pi * values[0] ** 2
'''


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('"""A module."""', '"""Another."""  # and a comment'),
        ('"""An area."""', '# An area.'),
        ('def area(self, r):', 'def area(self, r: float) -> Any:'),
        ('values = [r]', 'values: list[float] = [r]'),
        ('values = [r]', 'later: Any\n        values = [r]'),
        ('size: int = 3', 'size: "float" = 3'),
        ('from typing import Any', 'from collections.abc import Iterator'),
        ('** 2', '**  2'),
    ],
)
def test_what_nothing_is_computed_from_does_not_count(old, new):
    assert old in SOURCE
    assert computation(SOURCE.replace(old, new)) == computation(SOURCE)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('** 2', '** 3'),
        ('size: int = 3', 'size: int = 4'),
        ('size: int = 3', 'size = 3'),  # in a dataclass no field any more
        ('values = [r]', 'values = [r, 0]'),
        ('import math', 'import cmath as math'),
        ('def area(self, r)', 'def area(self, r=1)'),
    ],
)
def test_what_is_computed_counts(old, new):
    assert old in SOURCE
    assert computation(SOURCE.replace(old, new)) != computation(SOURCE)


def test_every_shaping_file_counts(tmp_path):
    for part in SHAPING:
        file = tmp_path / (part if part.endswith('.py') else f'{part}/file.py')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('x = 1\n')
    before = code_fingerprint(tmp_path)
    for part in SHAPING:
        file = tmp_path / (part if part.endswith('.py') else f'{part}/file.py')
        file.write_text('x = 2\n')
        code_fingerprint.cache_clear()
        assert code_fingerprint(tmp_path) != before
        file.write_text('x = 1\n')
    code_fingerprint.cache_clear()
    (tmp_path / 'swap.py').write_text('x = 2\n')
    assert code_fingerprint(tmp_path) == before
