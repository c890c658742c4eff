"""Images and annotations as the config's loader reads them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mmse.datasets.findings import progress
from mmse.datasets.headers import COMMON_MODES, Header, is_local, read_header, why_unreadable
from mmse.datasets.reading import Reading, reason

MAX_DECODED = 300
_FEWEST = 20
_MOST_PIXELS = 3_000_000_000  # half a minute of decoding


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
            unusual = header.kind[1] not in COMMON_MODES or (
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
        sample.fault = why_unreadable(sample.item.get('img_path'), sample.header, error)
        return
    _load_labels(reading, sample, loaded)


def _load_labels(reading: Reading, sample: Sample, loaded: dict[str, Any]) -> None:
    if 'img' not in loaded and sample.size is not None:
        loaded['img_shape'] = loaded['ori_shape'] = sample.size[::-1]
    try:
        sample.loaded = reading.head.labels(loaded)
    except Exception as error:  # a loader is anybody's code
        sample.label_fault = reason(error)
