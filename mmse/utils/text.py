"""Parts of sentences."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: which known one may be meant."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f'; did you mean {near[0]}?'
    return f'; there are {", ".join(known[:8])}' if known else ''


def not_one_of(given: object, known: Sequence[str], what: str) -> str:
    """A sentence that refuses a value that is none of the known names."""
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    return f'{given!r} is not {what}{hint}; allowed: {", ".join(map(repr, known))}'


def name_some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def counted(what: str, names: Sequence[str]) -> list[str]:
    """One sentence that counts and names what was found; none if nothing was found."""
    return [f'{len(names)} {what} ({name_some(names)})'] if names else []


def repeated(what: str, values: Iterable[object]) -> list[str]:
    """One sentence about the values that occur more than once; none if all are different."""
    names = [str(value) for value, count in Counter(values).items() if count > 1]
    return counted(f'{what}s occur more than once', names)


def duration(seconds: float) -> str:
    """A time in words: seconds, minutes, or hours and minutes."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'
