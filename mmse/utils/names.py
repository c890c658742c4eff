"""Names of files that are made from others."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def names_below(paths: Sequence[str], suffix: str) -> dict[str, Path]:
    """A relative path of its own for each file: its folders below the one that all share.

    Args:
        paths: The files.
        suffix: The ending of the new names. Where files differ in their ending only, it follows
            theirs.

    Returns:
        The new path of each.
    """
    if not paths:
        return {}
    absolute = {path: Path(os.path.abspath(path)) for path in paths}
    shared = Path(os.path.commonpath([path.parent for path in absolute.values()]))
    below = {path: whole.relative_to(shared) for path, whole in absolute.items()}
    count = Counter(name.with_suffix('') for name in set(below.values()))
    return {
        path: name.with_suffix(suffix)
        if count[name.with_suffix('')] == 1
        else name.with_name(name.name + suffix)
        for path, name in below.items()
    }
