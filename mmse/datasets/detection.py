"""Objects of detection data: which are trained, and which mmdet sets aside without a word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmse.datasets.findings import size
from mmse.datasets.images import Sample
from mmse.datasets.left_out import OUTSIDE
from mmse.datasets.orientation import QuarterTurned
from mmse.datasets.reading import Reading
from mmse.utils.text import counted, name_some

_BORDER_TOLERANCE = 1.0
_MOST_OUTSIDE = 0.5


@dataclass
class Objects:
    """What was found about the objects of a data set, image by image.

    Args:
        reading: The data set.
        masks: Whether masks are trained or evaluated.
        needed: Whether there must be objects.
        aside: Numbers of objects that mmdet leaves out, by reason.
        in_coco: Whether they are in a COCO file.
    """

    reading: Reading
    masks: bool
    needed: bool
    aside: Counter[str]
    in_coco: bool
    kept: Counter[int] = field(default_factory=Counter)
    boxed: int = 0
    crowd: int = 0
    faulty_masks: dict[str, list[str]] = field(default_factory=dict)
    unusable_masks: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)
    fit_given: int = 0
    fit_image: int = 0

    def __post_init__(self) -> None:
        self.turned = QuarterTurned(self.reading.head.place)
        loaders = self.reading.head.labels.transforms
        self.loads_masks = loads_masks(self.reading)
        self.polygons_only = any(not getattr(loader, 'poly2mask', True) for loader in loaders)

    def see(self, sample: Sample) -> None:
        """Take one image and its objects into account."""
        item, name = sample.item, str(sample.item.get('img_path'))
        self.files[name] += 1
        if sample.label_fault is not None:
            self.faults.append(f'{name}: {sample.label_fault}')
        if 'width' in item and 'height' in item:
            self._compare_sizes(sample, (item['width'], item['height']), name)
        trained = 0
        for instance in item.get('instances') or []:
            box = instance.get('bbox')
            if instance.get('ignore_flag'):
                self.crowd += 1
                if self.loads_masks:  # of crowds as well
                    self._note_fault(instance, name, sample)
                continue
            if box is not None and sample.size is not None and self._reaches_out(box, sample.size):
                self.outside.append(f'{[round(v, 1) for v in box]} in {name}')
            if self.masks and not self._has_mask(instance, name, sample):
                continue
            trained += 1
            self.kept[instance.get('bbox_label', -1)] += 1
        self.boxed += trained > 0

    def problems(self) -> list[str]:
        """The faults that stop a training or an evaluation."""
        found = [
            *counted(
                'images are not of the size that the annotations give (width x height), so boxes '
                'do not fit: give the images that were labelled, or scale sizes and boxes',
                self.unlike,
            ),
        ]
        if self.turned.names:
            sentence = self.turned.sentence('the annotations give the size of')
            found.append(f'{sentence}: {self._which_turn()}')
        if found:
            return found
        total = sum(self.kept.values())
        for what, names in self.faulty_masks.items():
            found += counted(what, names)
        if not found:
            found += counted('images have annotations that cannot be loaded', self.faults)
        if len(self.outside) > _MOST_OUTSIDE * total:
            found.append(
                f'{len(self.outside)} of {total} boxes reach past their image '
                f'({name_some(self.outside)}): COCO boxes are [x, y, width, height] in pixels'
            )
        if self.needed and not total and not found:
            found.append(self._nothing_left())
        return found

    def warnings(self) -> list[str]:
        """What is worth knowing and stops nothing."""
        if not self.needed:
            return []
        names = self.reading.classes
        unseen = [name for label, name in enumerate(names) if not self.kept[label]]
        twice = [name for name, times in self.files.items() if times > 1]
        found = []
        if self.crowd:
            total = self.crowd + sum(self.kept.values())
            found.append(f'{self.crowd} of {total} objects are {self._flagged()}')
        return [
            *found,
            *counted('objects have no usable mask and are set aside', self.unusable_masks),
            *counted('boxes reach past their image', self.outside),
            *counted('images are listed more than once', twice),
            *counted('classes have no object', unseen),
        ]

    def summary(self) -> str:
        """Numbers of objects, and of each class as the loader numbers them."""
        names = self.reading.classes
        parts = [f'{name} {self.kept[label]}' for label, name in enumerate(names)]
        return (
            f'{len(self.reading.items) - self.boxed} without an object, '
            f'{sum(self.kept.values())} objects of {len(names)} classes '
            f'({name_some(parts, 8)})'
        )

    def _nothing_left(self) -> str:
        if self.crowd:
            return f'all {self.crowd} objects are {self._flagged()}'
        if self.unusable_masks:
            return f'none of the {len(self.unusable_masks)} objects has a usable mask'
        return (
            f'there is no usable object of the classes {", ".join(self.reading.classes)}; to '
            'predict images without ground truth, set format_only=True and outfile_prefix of '
            'test_evaluator'
        )

    def _flagged(self) -> str:
        """What a flag on objects means."""
        if self.in_coco:
            return (
                'crowd regions (iscrowd 1), which are neither trained nor scored: write iscrowd 0 '
                'for what is one object'
            )
        return 'flagged, as difficult for instance, and neither trained nor scored'

    def _compare_sizes(self, sample: Sample, given: tuple[int, int], name: str) -> None:
        if sample.size is None or given == sample.size:
            return
        words = f'{name}: {size(given)}, the image {size(sample.size)}'
        if not self.turned.see(sample, given, words):
            self.unlike.append(words)
            return
        for instance in sample.item.get('instances') or []:
            past = [self._reaches_out(instance['bbox'], s) for s in (given, sample.size)]
            self.fit_given += past == [False, True]
            self.fit_image += past == [True, False]

    def _which_turn(self) -> str:
        """What to do where the annotations' sizes are those of the other orientation.

        Boxes that fit into the image in one orientation only tell which one they were drawn in.
        """
        swap = 'swap width and height of these images in the annotations'
        drawn_on_image = self.fit_image or self.aside[OUTSIDE]
        if drawn_on_image and not self.fit_given:
            return f'the boxes fit the image as it is read, so {swap}'
        if self.fit_given and not drawn_on_image:
            return f'the boxes fit that one, so {self.turned.remedy()}'
        return f'if the boxes fit the image as it is read, {swap}, otherwise {self.turned.remedy()}'

    def _reaches_out(self, box: Sequence[float], width_height: tuple[int, int]) -> bool:
        width, height = width_height
        beyond = max(-box[0], -box[1], box[2] - width, box[3] - height)
        return beyond > _BORDER_TOLERANCE

    def _has_mask(self, instance: Mapping[str, Any], name: str, sample: Sample) -> bool:
        """Whether a mask can be trained; faults that would end the training are kept."""
        defect = self._note_fault(instance, name, sample)
        if defect == 'unusable':
            self.unusable_masks.append(name)
        return defect is None

    def _note_fault(self, instance: Mapping[str, Any], name: str, sample: Sample) -> str | None:
        """What is wrong with a mask; kept where it would end the training."""
        defect = mask_defect(instance.get('mask'), sample.size, self.polygons_only)
        if defect not in (None, 'unusable'):
            self.faulty_masks.setdefault(str(defect), []).append(name)
        return defect


def loads_masks(reading: Reading) -> bool:
    """Whether the config's pipeline loads instance masks."""
    return any(getattr(t, 'with_mask', False) for t in reading.head.labels.transforms)


def mask_defect(
    mask: Any, width_height: tuple[int, int] | None, polygons_only: bool = False
) -> str | None:
    """What is wrong with a mask in COCO's format.

    Args:
        mask: A list of polygons, or run lengths.
        width_height: Size of the image in pixels, if it is known.
        polygons_only: Whether the loader takes polygons only (``poly2mask=False``).

    Returns:
        None for a good one; ``'unusable'`` for one that mmdet ignores with its object; otherwise a
        sentence about a mask that ends a training.
    """
    if not mask:
        return (
            'objects have no mask (segmentation): add masks, or take a detector without a mask head'
        )
    if isinstance(mask, list):
        if not all(isinstance(polygon, list) for polygon in mask):
            return (
                "objects have one list of numbers as 'segmentation': write a list of polygons, "
                '[[x1, y1, x2, y2, ...]]'
            )
        if not all(isinstance(number, int | float) for polygon in mask for number in polygon):
            return (
                "objects have polygons that are no lists of numbers as 'segmentation': write "
                '[[x1, y1, x2, y2, ...]]'
            )
        good = [p for p in mask if len(p) % 2 == 0 and len(p) >= 6]
        return None if good else 'unusable'
    if not isinstance(mask, dict):
        return "objects have a 'segmentation' that is neither polygons nor run lengths"
    counts, mask_size = mask.get('counts'), mask.get('size')
    if polygons_only or mask_size is None or not isinstance(counts, list | str):
        return 'unusable'
    if width_height is not None and tuple(mask_size) != width_height[::-1]:
        return 'objects have run lengths (segmentation.size) of another size than their image'
    return None
