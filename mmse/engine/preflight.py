"""What is checked before a run starts and anything is written: data, classes, checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from mmse.checkpoints.belonging import check_checkpoint, check_classes, check_pretrained
from mmse.datasets.check import check_data
from mmse.datasets.digest import is_built_in
from mmse.datasets.reading import dataset_class, leaves, type_name
from mmse.datasets.shapes import DEFAULT_ROOT
from mmse.engine.build import BuiltModel, build_model
from mmse.engine.config import walk
from mmse.engine.config.kinds import metrics_of, scope_of
from mmse.engine.config_checks import check_batch_of_one, check_config, classes_of
from mmse.utils.dependencies import require
from mmse.utils.errors import UserError

HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')

# Where the public data sets come from, by the folder in which mmdet and mmseg look for them.
SOURCES = {
    'data/coco': 'mim download mmdet --dataset coco2017 --dest data/coco',
    'data/cityscapes': 'https://www.cityscapes-dataset.com, prepared as mmsegmentation says',
    'data/ade': 'http://sceneparsing.csail.mit.edu, prepared as mmsegmentation says',
}


def preflight(cfg: Config, splits: Sequence[str], *, whole_checkpoint: bool) -> BuiltModel:
    """Check what a run needs, and log one line for each data set; nothing is written.

    Args:
        cfg: The full config, with ``load_from`` as the run will have it.
        splits: Which of train, val and test the run will use.
        whole_checkpoint: Every weight of ``load_from`` must fit, as for resuming and testing;
            otherwise only those of the backbone, whose attention may be new.

    Returns:
        The model, which was built to be checked, for the run.

    Raises:
        UserError: Missing or broken data, heads whose number of classes does not match the data,
            learning rates of their own beside one cycle for all, a model that cannot be built, or
            a checkpoint that does not belong to it.
    """
    scope = scope_of(cfg)
    init_default_scope(scope)
    if scope == 'mmdet':
        require('mmcv.ops', 'detectors')
    check_config(cfg, splits)
    used = [split for split in splits if cfg.get(f'{split}_dataloader') is not None]
    built_in: list[Path] = []
    for split in used:
        for where, dataset, _ in leaves(cfg, split):
            _check_settings(cfg, where, dataset)
            if is_built_in(dataset):
                built_in.append(Path(dataset.get('data_root', DEFAULT_ROOT)))
    images: dict[str, set[int]] = {}
    for split in used:
        metrics = metrics_of(cfg.get(f'{split}_evaluator')) if split != 'train' else []
        reports = check_data(cfg, split, metrics)
        images[split] = {image for report in reports for image in report.images}
        for report in reports:
            print_log(f'{split} data: {report.summary}', 'current')
            for warning in report.warnings:
                print_log(f'{split} data: {warning}', 'current', level=30)
        if split != 'train' and (common := images[split] & images.get('train', set())):
            print_log(
                f'{split} data: {len(common)} of {len(images[split])} images are trained on as '
                'well, so scores on them are no scores of new images',
                'current',
                level=30,
            )
    _check_evaluators(cfg, splits, built_in)
    if 'train' in splits:
        check_learning_rates(cfg)
    model = build_model(cfg)
    checkpoint = cfg.get('load_from')
    by_strategy = cfg.get('strategy') is not None and Path(str(checkpoint)).is_dir()
    if checkpoint is not None and '://' not in str(checkpoint) and not by_strategy:
        check_checkpoint(checkpoint, model.module, whole_checkpoint)
        if whole_checkpoint:
            check_classes(checkpoint, classes_of(cfg, splits[0]), f'the {splits[0]} data')
    check_pretrained(model.module)
    if 'train' in splits:
        check_batch_of_one(cfg, model.module)
    return model


def _check_settings(cfg: Config, place: str, dataset: Mapping[str, Any]) -> None:
    """Check where a data set is and how many classes it has, without reading it."""
    kind = dataset_class(dataset, place)
    root = Path(dataset.get('data_root') or '.')
    if not is_built_in(dataset) and '://' not in str(root) and not root.is_dir():
        source = next((SOURCES[name] for name in SOURCES if root.is_relative_to(name)), None)
        raise UserError(
            f'{place}: there is no data folder {root}'
            + (f'; get the data: {source}' if source else '')
            + '; or set data_root to where it is'
        )
    classes = (dataset.get('metainfo') or {}).get('classes') or getattr(kind, 'METAINFO', {}).get(
        'classes'
    )
    if classes and not isinstance(classes, str):
        _check_num_classes(cfg, len(classes), type_name(dataset['type']))
    if is_built_in(dataset):
        try:
            kind.check(dataset.get('data_root', DEFAULT_ROOT), **(dataset.get('shapes') or {}))
        except TypeError as error:
            raise UserError(f'{place}.shapes: {error}') from error


def _check_num_classes(cfg: Config, expected: int, dataset: str) -> None:
    for place, value in walk(cfg.model.to_dict(), 'model'):
        *path, key = place.split('.')
        if key == 'num_classes' and value != expected and any(p in HEADS for p in path):
            raise UserError(
                f'{place} is {value}, but {dataset} has {expected} classes: set {place}={expected}'
            )


def check_learning_rates(cfg: Config) -> None:
    """Refuse learning rates of their own for some parameters where one cycle sets them for all.

    The other schedulers of MMEngine start from what a parameter has.

    Args:
        cfg: A training config.

    Raises:
        UserError: It names the factor that would have no effect, and what to take instead.
    """
    schedulers = dict(walk({'param_scheduler': cfg.get('param_scheduler')})).values()
    if not any(isinstance(s, Mapping) and _is_one_cycle(s) for s in schedulers):
        return
    paramwise = (cfg.get('optim_wrapper') or {}).get('paramwise_cfg')
    for place, value in walk(paramwise, 'optim_wrapper.paramwise_cfg'):
        if place.endswith(('lr_mult', '.decay_rate')) and value != 1:
            raise UserError(
                f'{place}={value} has no effect beside OneCycleLR, which sets the learning rate of '
                'every parameter: take LinearLR and CosineAnnealingLR instead, or a list as eta_max'
            )


def _is_one_cycle(scheduler: Mapping[str, Any]) -> bool:
    """Whether it sets one learning rate for all parameters."""
    of_rates = 'LR' in str(scheduler.get('type')) or scheduler.get('param_name') == 'lr'
    one = not isinstance(scheduler.get('eta_max'), list | tuple)
    return 'OneCycle' in str(scheduler.get('type')) and of_rates and one


def _check_evaluators(cfg: Config, splits: Sequence[str], built_in: Sequence[Path]) -> None:
    """Metrics that read an annotation file need it; the built-in data are made by the run."""
    for place, value in walk({f'{s}_evaluator': cfg.get(f'{s}_evaluator') for s in splits}):
        if place.endswith('.ann_file') and value is not None and '://' not in str(value):
            file = Path(value)
            if not file.is_file() and not any(file.is_relative_to(root) for root in built_in):
                raise UserError(f'{place}: there is no file {file}')
