"""Checks of what stands in a study's config: errors name the key, the value and what is allowed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmse.utils.errors import UserError
from mmse.utils.text import nearest


def check_keys(raw: Mapping[str, Any], allowed: set[str], where: str) -> None:
    """Refuse a key that means nothing, with the one that may be meant."""
    if unknown := sorted(set(raw) - allowed):
        raise UserError(f'{where}unknown key {unknown[0]}' + nearest(unknown[0], sorted(allowed)))


def named_dict(value: Any, where: str, what: str) -> dict[str, Any]:
    """A dict whose keys are text.

    Args:
        value: The value.
        where: Its key.
        what: What the dict may be made of, in words.

    Raises:
        UserError: It is no dict, or one of its keys is no text.
    """
    if not isinstance(value, Mapping):
        raise UserError(f'{where}: {value!r} given; allowed: a dict of {what}')
    if others := [key for key in value if not isinstance(key, str) or not key]:
        raise UserError(f'{where}: the key {others[0]!r} given; allowed: text that is not empty')
    return dict(value)


def text(value: Any, where: str) -> str:
    """Text that is not empty.

    Raises:
        UserError: It is none.
    """
    if not isinstance(value, str) or not value:
        raise UserError(f'{where}: {value!r} given; allowed: text that is not empty')
    return value


def positive(value: Any, where: str) -> float:
    """A finite number above 0.

    Raises:
        UserError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f'{where}: {value!r} given; allowed: a number above 0')
    return float(value)


def is_count(value: Any, least: int) -> bool:
    """Whether it is a whole number, and not less than ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def one_of(value: Any, allowed: Sequence[str], where: str) -> Any:
    """One of some values.

    Raises:
        UserError: It is none of them.
    """
    if value not in allowed:
        raise UserError(f'{where}: {value!r} given; allowed: {", ".join(allowed)}')
    return value
