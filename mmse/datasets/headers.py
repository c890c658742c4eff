"""Image files by their first and last bytes."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmse.datasets.reading import reason

Image.MAX_IMAGE_PIXELS = None  # aerial and slide images are no attack

COMMON_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')
_ORIENTATION = 274
_BITS_PER_SAMPLE = 258
# What the end of a complete file holds; some programs append data of their own.
_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
_TAIL = 4096


class Header(NamedTuple):
    """What an image file says of itself.

    Args:
        size: Width and height in pixels, as stored.
        kind: Format and mode, in Pillow's terms.
        bits: Bits per channel.
        orientation: EXIF's, 1 to 8; 1 is upright.
        complete: Whether the file ends as its format demands.
    """

    size: tuple[int, int]
    kind: tuple[str, str]
    bits: int
    orientation: int
    complete: bool


def read_header(path: str | Path) -> Header | None:
    """Read the first and the last bytes of an image file.

    Returns:
        None if Pillow does not know the format, which the config's loader may know.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            kind = (image.format or '', image.mode)
            orientation = _orientation(image)
            return Header(
                image.size,
                kind,
                _bits(path, image),
                orientation,
                _ends_well(path, kind[0]),
            )
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError):
        return None


def is_local(path: Any) -> TypeGuard[str]:
    """Whether an item's path is that of one local file."""
    return isinstance(path, str) and '://' not in path


def why_unreadable(path: Any, header: Header | None, error: Exception) -> str:
    """Why an image cannot be read, in words that need no source code."""
    if is_local(path):
        file = Path(path)
        if file.is_dir():
            return 'a folder'
        if file.is_file() and file.stat().st_size == 0:
            return 'an empty file'
        start = _first_bytes(file)
        if start.lstrip()[:1] == b'<':
            return 'a web page'
        if start.startswith(b'version https://git-lfs'):
            return 'a pointer of Git LFS: git lfs pull fetches the image'
    if header is not None and not header.complete:
        return 'cut off'
    if header is not None and header.kind[1] not in COMMON_MODES:
        kind, mode = header.kind
        return f'a {kind} of {header.bits} bits, mode {mode}, which the loader does not decode'
    if header is None and isinstance(error, AssertionError):  # imdecode gave nothing
        return 'no image of a format that the loader knows'
    return reason(error)


def _first_bytes(file: Path) -> bytes:
    if not file.is_file():
        return b''
    with file.open('rb') as stream:
        return stream.read(200)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; of a PNG without decoding it, which ``getexif`` would do."""
    exif = image.getexif() if image.format != 'PNG' else Image.Exif()
    if image.format == 'PNG' and 'exif' in image.info:
        exif.load(image.info['exif'])
    orientation = int(exif.get(_ORIENTATION, 1) or 1)
    return orientation if 1 <= orientation <= 8 else 1


def _ends_well(path: str | Path, kind: str) -> bool:
    if (end := _ENDS.get(kind)) is None:
        return True
    with open(path, 'rb') as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL))
        return end in file.read()


def _bits(path: str | Path, image: Image.Image) -> int:
    """Bits per channel; Pillow's mode hides those of colour images of 16 bits."""
    if image.format == 'PNG':
        with open(path, 'rb') as file:
            return int(np.frombuffer(file.read(25)[24:], np.uint8)[0])
    if image.format == 'TIFF':
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))  # type: ignore[attr-defined]
    return 16 if image.mode.startswith('I') else 8
