"""What the converters of public data sets share."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmse.datasets.folder import build_once
from mmse.utils.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def find_layout(src: str | Path, folder: str, parts: Sequence[str], origin: str) -> Path:
    """Find a public data set in a clone, or be given its folder itself.

    Args:
        src: The clone, or the folder in it.
        folder: The folder's name in the clone.
        parts: Folders that it must have.
        origin: Where the public data come from, for the message.

    Raises:
        UserError: It is not there.
    """
    src = Path(src)
    for root in (src / folder, src):
        if all((root / part).is_dir() for part in parts):
            return root
    expected = ', '.join(f'{folder}/{part}' for part in parts)
    raise UserError(f'{src} does not hold {expected}: give --src a clone of {origin}')


def convert(
    name: str,
    version: int,
    root: Path,
    dst: str | Path,
    splits: dict[str, list[tuple[Path, Path]]],
    convert_split: Callable[[Path, str, list[tuple[Path, Path]]], dict[str, int]],
) -> dict[str, dict[str, int]]:
    """Write ``dst`` from pairs of image and annotation files, once.

    Args:
        name: The data set's name.
        version: The converter's version; output of another version counts as other data.
        root: The source folder, which holds all files.
        dst: The folder to write; missing, empty, or made from the same files.
        splits: (image, annotation) files of every split.
        convert_split: Writes one split into a folder and returns its counts.

    Returns:
        The counts of every split.

    Raises:
        UserError: ``dst`` lies in the source or holds something else.
    """
    if Path(dst).resolve().is_relative_to(root.resolve()):
        raise UserError(f'{dst} lies inside the source {root}: give --dst a folder outside it')
    settings = {
        'name': name,
        'version': version,
        'images': {split: len(pairs) for split, pairs in splits.items()},
        'source': _fingerprint(root, [f for pairs in splits.values() for p in pairs for f in p]),
    }

    def build(folder: Path) -> dict[str, dict[str, int]]:
        return {split: convert_split(folder, split, pairs) for split, pairs in splits.items()}

    return build_once(dst, settings, build)['facts']


def _fingerprint(root: Path, files: Iterable[Path]) -> str:
    """A digest of names and contents, which tells whether a folder was made from these files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        digest.update(f'{file.relative_to(root).as_posix()} {len(content)} '.encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Read a picture or label map.

    Raises:
        UserError: It is not readable as an image.
    """
    image = cv2.imread(str(path), flags)
    if image is None:
        raise UserError(f'{path} is not a readable image')
    return image
