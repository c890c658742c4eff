"""Label maps as the loss sees them: after the loader's ``label_map`` and ``reduce_zero_label``."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mmse.datasets.findings import size
from mmse.datasets.headers import is_local, read_header
from mmse.datasets.images import Sample
from mmse.datasets.orientation import QuarterTurned
from mmse.datasets.reading import Reading
from mmse.utils.text import counted, name_some

_LARGEST = 255
_FOLDED = (
    'label maps have labels that the loader folds to 8 bits, so that 257 becomes 1: use labels up '
    'to 254, and 255 for what is left out of the loss'
)
_FRACTIONS = 'label maps have labels that are no whole numbers: write whole numbers'
_LOSSY = 'label maps are JPEG files, which blur labels: save them as PNG'
COLOURS = (
    'label maps have several channels, but a label map has one, with the number of a class in each '
    'pixel: turn its colours into numbers, or list the classes with their colours in labelmap.txt '
    'of data_root, such as car:64,0,128::'
)
# Signed maps and those of 16 bits write these for 255, and the loader folds them to it.
_IGNORED = (-1, 65535)


@dataclass
class Labels:
    """What was found in the label maps of a data set, one after another.

    Args:
        reading: The data set.
        training: Whether it is trained on.
    """

    reading: Reading
    training: bool
    pixels: Counter[int] = field(default_factory=Counter)
    maps: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turned = QuarterTurned(self.reading.head.place)

    @property
    def ignore(self) -> int:
        """The label that is left out of the loss."""
        return int(getattr(self.reading.dataset, 'ignore_index', _LARGEST))

    def see(self, sample: Sample) -> None:
        """Take one label map into account."""
        name = str(sample.item['seg_map_path'])
        if sample.label_fault is not None:
            self.unreadable.append(f'{name}: {sample.label_fault}')
        labels = (sample.loaded or {}).get('gt_seg_map')
        if labels is None:
            return
        self.maps += 1
        if not self.reading.head.custom and (fault := file_fault(name)) is not None:
            self.faults.setdefault(fault, []).append(name)
            return
        if labels.ndim != 2:
            self.faults.setdefault(COLOURS, []).append(name)
            return
        self._compare_sizes(sample, labels, name)
        found = count_labels(labels)
        self.pixels.update(found)
        count = len(self.reading.classes) or _LARGEST  # without names any label may be a class
        if strange := [v for v in sorted(found) if not 0 <= v < count and v != self.ignore]:
            self.wrong.append(f'{name} has {name_some([str(v) for v in strange], 6)}')

    def problems(self) -> list[str]:
        """The faults that stop a training or an evaluation."""
        arrays = all('.npy: ' in name for name in self.unreadable)
        advice = (
            ': they are arrays, give PNG files, which LabelMe writes beside them' if arrays else ''
        )
        found = counted(f'label maps cannot be loaded{advice}', self.unreadable)
        for fault, names in self.faults.items():
            found += counted(fault, names)
        found += counted('label maps differ in size from their image', self.unlike)
        if self.turned.names:
            sentence = self.turned.sentence('their label maps lie on')
            found.append(f'{sentence}: {self.turned.remedy()}')
        if found:
            return found
        count = len(self.reading.classes)
        found = counted(
            f'label maps have labels other than 0 to {count - 1} and {self.ignore}', self.wrong
        )
        if found:
            return [f'{found[0]}; {self._how_to_renumber(count)}']
        classes = sorted(set(self.pixels) - {self.ignore})
        ignored = self.pixels[self.ignore]
        if self.maps and not classes:
            return [f'the label maps hold nothing but {self.ignore}, which is left out of the loss']
        if len(classes) == 1 and (self.training or ignored):
            return [self._one_class(classes[0], ignored > 0)]
        return []

    def warnings(self) -> list[str]:
        """What is worth knowing and stops nothing."""
        names = self.reading.classes
        unseen = [f'{name} ({label})' for label, name in enumerate(names) if not self.pixels[label]]
        found = counted(f'classes are in none of the {self.maps} label maps', unseen)
        if found and self.pixels[self.ignore]:
            found[0] += f'; {self._share(self.ignore)} of the pixels are {self.ignore}, which is '
            found[0] += 'left out of the loss'
        return found

    def summary(self) -> str:
        """Classes that were seen and their shares of the pixels."""
        highest = max(set(self.pixels) - {self.ignore}, default=-1)
        names = self.reading.classes or tuple(f'label {k}' for k in range(highest + 1))
        seen = [f'{n} {self._share(k)}' for k, n in enumerate(names) if self.pixels[k]]
        return (
            f'{len(seen)} of {len(names)} classes in their label maps ({name_some(seen, 8)}), '
            f'{self._share(self.ignore)} of the pixels left out of the loss ({self.ignore})'
        )

    def _share(self, label: int) -> str:
        share = 100 * self.pixels[label] / max(1, self.pixels.total())
        return f'{share:.1f} %' if share == 0 or share >= 0.1 else '< 0.1 %'

    def _compare_sizes(self, sample: Sample, labels: np.ndarray, name: str) -> None:
        wide_high = labels.shape[::-1]
        if sample.size is None or sample.size == wide_high:
            return
        words = f'{name} is {size(wide_high)}, its image {size(sample.size)}'
        if not self.turned.see(sample, (wide_high[0], wide_high[1]), words):
            self.unlike.append(words)

    def _how_to_renumber(self, count: int) -> str:
        values = [str(v) for v in sorted(self.pixels)]
        zero = self.reading.cfg.get('reduce_zero_label')
        after = ' (after reduce_zero_label, which takes one from each)' if zero else ''
        return (
            f'in all they hold {name_some(values, 12)}{after}: number the classes from 0 to '
            f'{count - 1}, or give the names of all classes'
        )

    def _one_class(self, label: int, ignored: bool) -> str:
        if ignored and self.ignore == _LARGEST:
            zero = self.reading.cfg.get('reduce_zero_label')
            advice = (
                'set reduce_zero_label=False if label 0 is a class'
                if zero
                else 'if 255 is a class, write its number instead, such as 1'
            )
            return (
                f'the label maps hold only {label} and 255, and 255 is left out of the loss, so '
                f'there is nothing to tell apart: {advice}'
            )
        return f'the label maps hold only label {label}: there is nothing to tell apart'


def file_fault(path: Any) -> str | None:
    """What is wrong with a label map's file that the loaded labels no longer show."""
    header = read_header(path) if is_local(path) else None
    if header is None:
        return None
    if header.kind[0] == 'JPEG':
        return _LOSSY
    if not header.kind[1].startswith(('I', 'F')):
        return None
    with Image.open(path) as image:
        raw = np.asarray(image)
    values = np.unique(raw)
    if not np.array_equal(values, np.round(values)):
        return _FRACTIONS
    strange = values[(values < 0) | (values > _LARGEST)]
    return None if np.isin(strange, _IGNORED).all() else _FOLDED


def loads_labels(reading: Reading) -> bool:
    """Whether the config's pipeline loads label maps of semantic segmentation."""
    item = reading.items[0] if reading.items else {}
    transforms = reading.head.labels.transforms
    loads = any(getattr(transform, 'with_seg', True) for transform in transforms)
    return loads and item.get('seg_map_path') is not None and 'instances' not in item


def count_labels(labels: np.ndarray) -> dict[int, int]:
    """How many pixels each label has."""
    if labels.dtype == np.uint8:
        counts = np.bincount(labels.ravel(), minlength=1)
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, numbers = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
