"""What a check of data hands on: a summary, warnings, and the faults that stop a training."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmengine.logging import print_log

from mmse.utils.errors import UserError

T = TypeVar('T')

_SECONDS_BETWEEN_LINES = 5.0


@dataclass
class Report:
    """What a check found that does not prevent training.

    Args:
        summary: One line with the counts.
        warnings: Sentences worth logging.
        images: The ``image_number`` of each image.
    """

    summary: str
    warnings: list[str] = field(default_factory=list)
    images: list[int] = field(default_factory=list)


def image_number(path: str | Path) -> int:
    """A number of 48 bits that tells an image's file from others, and takes less room."""
    name = os.path.abspath(path).encode(errors='surrogateescape')
    return int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), 'big')


def refuse(where: str, problems: Sequence[str]) -> None:
    """Raise the faults that were found, if there are any, as one sentence.

    Raises:
        UserError: It begins with ``where``, the file or the place in the config.
    """
    if problems:
        raise UserError(f'{where}: ' + '; '.join(problems))


def find_missing(files: Iterable[str | Path]) -> list[str]:
    """The files that do not exist; lists every folder once instead of asking for each file."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for path in files:
        file = Path(path)
        if file.parent not in listed:
            try:
                with os.scandir(file.parent) as entries:
                    listed[file.parent] = {entry.name for entry in entries}
            except OSError:
                listed[file.parent] = set()
        if file.name not in listed[file.parent]:
            missing.append(str(file))
    return missing


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """The items one after another; every few seconds a line says how many are done."""
    last = time.monotonic()
    for done, item in enumerate(items):
        if (now := time.monotonic()) - last > _SECONDS_BETWEEN_LINES:
            last = now
            print_log(f'{what}: {done} of {len(items)} images checked', 'current')
        yield item


def size(width_height: Sequence[Any]) -> str:
    """A size as text, width first, such as ``640x480``."""
    return f'{width_height[0]}x{width_height[1]}'
