"""What the checks of detection and segmentation data share."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What a check found that does not prevent training.

    Args:
        summary: One line with the counts.
        classes: Class names (detection), or the labels that were seen (segmentation).
        warnings: Sentences worth logging.
    """

    summary: str
    classes: tuple[str, ...] | tuple[int, ...]
    warnings: list[str] = field(default_factory=list)


def find_missing(files: Iterable[Path]) -> list[str]:
    """The files that do not exist; lists every folder once instead of asking for each file."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for file in files:
        if file.parent not in listed:
            try:
                with os.scandir(file.parent) as entries:
                    listed[file.parent] = {entry.name for entry in entries}
            except OSError:
                listed[file.parent] = set()
        if file.name not in listed[file.parent]:
            missing.append(str(file))
    return missing
