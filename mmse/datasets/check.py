"""The check of a config's data: what will be trained, what is left out, and what is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file

from mmse.datasets import coco_file
from mmse.datasets.batch import check_batch
from mmse.datasets.cache import cached
from mmse.datasets.coco_values import Content
from mmse.datasets.detection import Objects, loads_masks
from mmse.datasets.digest import is_built_in
from mmse.datasets.findings import Report, image_number, refuse
from mmse.datasets.images import samples
from mmse.datasets.left_out import in_words, left_out, set_aside
from mmse.datasets.orientation import Turned
from mmse.datasets.pictures import Pictures, missing
from mmse.datasets.reading import Leaf, Reading, dataset_class, leaves, read_dataset, type_name
from mmse.datasets.segmentation import Labels, loads_labels


def check_data(cfg: Config, split: str, metrics: Sequence[Mapping[str, Any]] = ()) -> list[Report]:
    """Check every data set of one split, or take what an earlier check of the same data found.

    The data sets are built from the config, and images and annotations are read by its own loading
    transforms, so the numbers are those of the training. Nothing but the report of a check that
    went well is written, into the user's cache folder.

    Args:
        cfg: The full config; its default scope must be set.
        split: train, val or test.
        metrics: The metrics that evaluate the split; those with ``format_only`` write predictions
            and need no objects.

    Returns:
        One report for each data set that reads files.

    Raises:
        UserError: One sentence with what was found, where, and what to do.
    """
    if all(is_built_in(leaf.cfg) for leaf in leaves(cfg, split)):
        return []
    try:
        return cached(cfg, split, metrics, lambda: _check_split(cfg, split, metrics))
    finally:
        for leaf in leaves(cfg, split):
            coco_file.annotations.take(_ann_file(leaf))


class _Use(NamedTuple):
    """What a split's data are used for: training, scores, scores of masks, and whether COCOeval
    gets the annotations as they are in the file, for the score of each class."""

    training: bool
    scored: bool
    segm: bool
    by_pycocotools: bool
    classwise: bool

    @property
    def needs_objects(self) -> bool:
        return self.training or self.scored


def _check_split(cfg: Config, split: str, metrics: Sequence[Mapping[str, Any]]) -> list[Report]:
    scoring = [metric for metric in metrics if not metric.get('format_only')]
    segm = any('segm' in str(m.get('metric', '')) for m in scoring)
    training = split == 'train'
    scored = bool(scoring) and not training
    renumbered = all(metric['type'] == 'mmse.CocoMetric' for metric in scoring)
    classwise = any(metric.get('classwise') for metric in scoring)
    use = _Use(training, scored, segm, scored and not renumbered, classwise)
    reports: list[Report] = []
    for leaf in leaves(cfg, split):
        if is_built_in(leaf.cfg):
            continue
        if issubclass(dataset_class(leaf.cfg, leaf.place), BaseDataset):
            reports.append(_check_dataset(cfg, split, leaf, use))
        else:
            kind = type_name(leaf.cfg['type'])
            reports.append(Report(f'{kind} is no BaseDataset of MMEngine, so it was not read'))
    return reports


def _check_dataset(cfg: Config, split: str, leaf: Leaf, use: _Use) -> Report:
    """Check one data set: its files, what they list, their contents, and a batch of them."""
    where, notes = leaf.place, list[str]()
    content: Content | None = None
    if _reads_coco(dataset_class(leaf.cfg, leaf.place)):
        where = _ann_file(leaf)
        content, notes = _check_coco(leaf, where, use)
    reading = read_dataset(leaf.cfg, leaf.place)
    notes += left_out(reading)
    if not reading.items:
        refuse(where, notes if reading.listed else [_no_images(reading)])
    if 'img_path' not in reading.items[0]:
        return Report(f'{where}: {len(reading.items)} items that are no single images, not read')
    refuse(where, missing(reading))
    aside = set_aside(reading, content) if content is not None else Counter[str]()
    if aside:
        notes.append(f'mmdet leaves out {aside.total()} objects: {in_words(aside)}')
    pictures, turned = Pictures(reading), Turned(reading)
    contents: list[Objects | Labels] = []
    if any('instances' in item for item in reading.items[:1]):
        masks = use.segm or loads_masks(reading)
        contents.append(Objects(reading, masks, use.needs_objects, aside, content is not None))
    if with_labels := loads_labels(reading):
        contents.append(Labels(reading, use.training))
    for sample in samples(reading, with_labels, leaf.place):
        for findings in (pictures, turned, *contents):
            findings.see(sample)
    # An image that cannot be read is the cause of other faults, a wrong size that of a wrong turn.
    for findings in (pictures, *contents, turned):
        problems = findings.problems()
        refuse(where, [*problems, *notes] if problems else [])
    check_batch(cfg, split, reading, leaf.wrapper, pictures.shapes)
    summary = ', '.join(findings.summary() for findings in (pictures, *contents))
    warnings = [
        *notes,
        *(warning for f in (pictures, turned, *contents) for warning in f.warnings()),
    ]
    images = [image_number(item['img_path']) for item in reading.items]
    return Report(f'{where}: {summary}', [f'{where}: {warning}' for warning in warnings], images)


def _ann_file(leaf: Leaf) -> str:
    return str(Path(leaf.cfg.get('data_root') or '', leaf.cfg.get('ann_file') or ''))


def _check_coco(leaf: Leaf, ann_file: str, use: _Use) -> tuple[Content, list[str]]:
    """The content of a data set's COCO file, and what is worth a warning."""
    content = coco_file.read_coco(ann_file, without_objects=not use.needs_objects)
    trained = (leaf.cfg.get('metainfo') or {}).get('classes')
    if trained is None:
        trained = dataset_class(leaf.cfg, leaf.place).METAINFO.get('classes')
    if isinstance(trained, str):  # the path of a file with a name in each line
        trained = list_from_file(trained)
    notes = coco_file.check_classes(content, ann_file, trained)
    coco_file.check_references(content, ann_file)
    if use.by_pycocotools:
        coco_file.check_for_evaluation(content, ann_file, use.classwise)
    return content, notes


def _reads_coco(kind: type[Any]) -> bool:
    """Whether a class reads its files as mmdet's CocoDataset does; some keep only the name."""
    base = {base.__name__: base for base in kind.__mro__}.get('CocoDataset')
    methods = ('load_data_list', 'parse_data_info')
    return base is not None and all(getattr(kind, m) is getattr(base, m) for m in methods)


def _no_images(reading: Reading) -> str:
    dataset = reading.dataset
    folder = next(iter((dataset.data_prefix or {}).values()), '')
    suffix = getattr(dataset, 'img_suffix', None)
    ending = f' whose names end in {suffix}' if suffix else ''
    keys = 'data_root, data_prefix and img_suffix' if suffix else 'data_root and ann_file'
    return f'there are no images{ending} in {folder}: check {keys}'
