"""Image files by their first and last bytes, and what the config's loader makes of them."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmse.datasets.findings import progress
from mmse.datasets.reading import Reading, reason

Image.MAX_IMAGE_PIXELS = None  # aerial and slide images are no attack

MAX_DECODED = 300
_FEWEST = 20
_MOST_PIXELS = 3_000_000_000  # half a minute of decoding
_COMMON_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')
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


@dataclass
class Sample:
    """One item as far as it was read.

    Args:
        index: Its place among the items of the training.
        item: What the data set lists for it.
        header: What the image file says; None if Pillow does not know the format.
        size: Width and height as the loader gives them; None if unknown.
        loaded: The item after the loading transforms; without ``img`` if only labels were read.
        fault: Why the image cannot be read.
        label_fault: Why its annotations cannot be loaded.
    """

    index: int
    item: dict[str, Any]
    header: Header | None
    size: tuple[int, int] | None = None
    loaded: dict[str, Any] | None = None
    fault: str | None = None
    label_fault: str | None = None


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


def samples(reading: Reading, every_label: bool, what: str) -> Iterator[Sample]:
    """Read the items of a training: every header, and some or all of their contents.

    All images are decoded by the config's own loader where there are at most ``MAX_DECODED``,
    fewer of very large ones; otherwise so many, evenly spaced, and besides them those of unusual
    kinds. Annotations are loaded for the images that are decoded.

    Args:
        reading: The data set.
        every_label: Load the annotations of every item.
        what: The subject of the lines about progress.
    """
    choice = _Choice(reading, every_label)
    for index in progress(range(len(reading.items)), what):
        item = reading.items[index]
        path = item.get('img_path')
        sample = Sample(index, item, read_header(path) if is_local(path) else None)
        if choice.decodes(sample):
            _decode(reading, sample)
            choice.learn(sample)
        elif sample.header is not None:
            sample.size = choice.size(sample.header)
        if every_label and sample.loaded is None and sample.fault is None:
            _load_labels(reading, sample, _start(reading, index))
        yield sample
        sample.loaded = None


class _Choice:
    """Which images are decoded, and what those tell about the others."""

    def __init__(self, reading: Reading, every_label: bool) -> None:
        count, most = len(reading.items), MAX_DECODED
        first = reading.items[0].get('img_path') if count else None
        if is_local(first) and (header := read_header(first)) is not None:
            pixels = header.size[0] * header.size[1]
            most = min(most, max(_FEWEST, _MOST_PIXELS // max(pixels, 1)))
        self.chosen = set(evenly(count, most))
        # What the user's transforms make of labels may depend on the image.
        self.all = reading.head.custom and every_label
        self.decoded: Counter[tuple[str, str] | None] = Counter()
        self.turning: dict[int, bool] = {}

    def decodes(self, sample: Sample) -> bool:
        """Whether an image is decoded: as one of the sample, or as it is unusual."""
        header = sample.header
        if self.all or sample.index in self.chosen or (header is not None and not header.complete):
            return True
        if header is None:
            unusual = is_local(sample.item.get('img_path'))
        else:
            turned = header.orientation != 1
            unusual = header.kind[1] not in _COMMON_MODES or (
                turned and (header.kind[0] != 'JPEG' or header.orientation not in self.turning)
            )
        return unusual and self.decoded[header and header.kind] < MAX_DECODED

    def learn(self, sample: Sample) -> None:
        """Remember how an image was decoded."""
        header = sample.header
        if sample.fault is None:
            self.decoded[header and header.kind] += 1
            if header is not None and header.orientation != 1 and sample.size is not None:
                self.turning[header.orientation] = sample.size != header.size

    def size(self, header: Header) -> tuple[int, int]:
        """The size that the loader gives an image whose header alone was read."""
        turned = header.orientation >= 5 and self.turning.get(header.orientation, False)
        return header.size[::-1] if turned else header.size


def is_local(path: Any) -> TypeGuard[str]:
    """Whether an item's path is that of one local file."""
    return isinstance(path, str) and '://' not in path


def evenly(count: int, most: int) -> Sequence[int]:
    """At most ``most`` of the numbers below ``count``, evenly spaced."""
    number = min(count, most)
    return [k * count // number for k in range(number)]


def _start(reading: Reading, index: int) -> dict[str, Any]:
    item: dict[str, Any] = reading.dataset.get_data_info(index)
    return item


def _decode(reading: Reading, sample: Sample) -> None:
    """Load an image and its annotations with the config's transforms."""
    try:
        loaded = reading.head.image(_start(reading, sample.index))
        if loaded is None:
            raise ValueError('the loader gives no image')
        if 'img' in loaded:
            height, width = loaded['img'].shape[:2]
            sample.size = (int(width), int(height))
        if sample.header is not None and not sample.header.complete:
            with Image.open(sample.item['img_path']) as image:
                image.load()
    except Exception as error:  # a loader is anybody's code
        sample.fault = _why(sample.item.get('img_path'), sample.header, error)
        return
    _load_labels(reading, sample, loaded)


def _load_labels(reading: Reading, sample: Sample, loaded: dict[str, Any]) -> None:
    if 'img' not in loaded and sample.size is not None:
        loaded['img_shape'] = loaded['ori_shape'] = sample.size[::-1]
    try:
        sample.loaded = reading.head.labels(loaded)
    except Exception as error:  # a loader is anybody's code
        sample.label_fault = reason(error)


def _why(path: Any, header: Header | None, error: Exception) -> str:
    """Why an image cannot be read, in words that need no source code."""
    if is_local(path):
        file = Path(path)
        if file.is_dir():
            return 'a folder'
        if file.is_file() and file.stat().st_size == 0:
            return 'an empty file'
        if file.is_file() and file.read_bytes()[:200].lstrip()[:1] == b'<':
            return 'a web page'
    if header is not None and not header.complete:
        return 'cut off'
    if header is not None and header.kind[1] not in _COMMON_MODES:
        kind, mode = header.kind
        return f'a {kind} of {header.bits} bits, mode {mode}, which the loader does not decode'
    return reason(error)


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
