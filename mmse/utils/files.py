"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar('T')


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place and rename it when it is complete.

    A reader never sees half a file, and a writer that fails leaves the old file as it was.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The path to write to. It ends in ``.part``, so writers that choose their format by the
        ending must be told the format.
    """
    path = Path(path)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; see ``replacing``."""
    with replacing(path) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: str | Path, what: Any) -> None:
    """Write a JSON file, creating its folder; see ``replacing``.

    Raises:
        ValueError: ``what`` holds a NaN or an infinity, which JSON does not have.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(what, indent=1, allow_nan=False) + '\n')


def read_json(path: str | Path) -> Any:
    """Read a JSON file in UTF-8."""
    return json.loads(Path(path).read_text(encoding='utf-8'))


class ReadFiles(Generic[T]):
    """What was read from files, for whoever needs it next, as long as the files are the same."""

    def __init__(self) -> None:
        self._contents: dict[tuple[str, int, int] | None, T] = {}

    def keep(self, path: str | Path, content: T) -> T:
        """Keep what was read from a file, and return it."""
        self._contents[_identity(path)] = content
        return content

    def get(self, path: str | Path) -> T | None:
        """What was read from a file; None if nothing was or the file has changed since."""
        return self._contents.get(_identity(path))

    def take(self, path: str | Path) -> T | None:
        """The same, and keep it no longer."""
        return self._contents.pop(_identity(path), None)

    def clear(self) -> None:
        """Give the memory back."""
        self._contents.clear()


def _identity(path: str | Path) -> tuple[str, int, int] | None:
    """What tells a file from another and from itself after a change; None if it is not there."""
    path = Path(path)
    if not path.is_file():
        return None
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
