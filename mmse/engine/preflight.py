"""What is checked before a run starts and anything is written: data, classes, checkpoint."""

import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import find_latest_checkpoint
from torch import Tensor, nn

from mmse.datasets.checks import check_coco, check_seg_pairs
from mmse.dependencies import require
from mmse.engine.config import walk
from mmse.engine.own_data import innermost
from mmse.errors import UserError
from mmse.weights.safe_load import read_checkpoint, state_dict_of

# Where the public data sets come from, by the type of mmdet's or mmseg's dataset class.
SOURCES = {
    'CocoDataset': 'mim download mmdet --dataset coco2017 --dest data/coco',
    'CityscapesDataset': 'https://www.cityscapes-dataset.com, prepared as mmsegmentation says',
    'ADE20KDataset': 'http://sceneparsing.csail.mit.edu, prepared as mmsegmentation says',
}
HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')


def preflight(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check what a run needs; log one line for each data set.

    Args:
        cfg: The full config, with ``load_from``, ``resume`` and ``work_dir`` as the run will have.
        loaders: The dataloaders that the run will use.

    Raises:
        UserError: Missing or broken data, heads whose number of classes does not match the data, a
            model that cannot be built, or a checkpoint that does not belong to it.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if cfg.get('default_scope') == 'mmdet':
        require('mmcv.ops', 'detectors')
    for loader in loaders:
        if cfg.get(loader) is not None:
            for dataset in _datasets(cfg[loader]['dataset']):
                _check_dataset(cfg, loader.split('_')[0], dataset)
    model = build_model(cfg)
    if checkpoint := _checkpoint(cfg):
        check_checkpoint(checkpoint, model, whole=bool(cfg.get('resume')))


def build_model(cfg: Config) -> nn.Module:
    """Build the config's model; a wrong key or value in it is the user's to mend."""
    try:
        return MODELS.build(cfg.model)
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(f'the model of the config cannot be built: {error}') from error


def _checkpoint(cfg: Config) -> str | None:
    """The checkpoint file that the Runner will load, if it is one on this machine."""
    path = cfg.get('load_from')
    if cfg.get('resume') and path is None:
        path = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
    return None if path is None or '://' in str(path) else str(path)


def check_checkpoint(path: str, model: nn.Module, whole: bool) -> None:
    """Refuse a checkpoint whose weights do not belong to the model.

    Args:
        path: The checkpoint file.
        model: The model that will load it.
        whole: Every weight must fit, as for resuming and testing; otherwise only those of the
            backbone, whose attention may be new.

    Raises:
        UserError: It names the file, the first key that does not fit, and what to do.
    """
    theirs = state_dict_of(read_checkpoint(path))
    ours = model.state_dict()
    scope = '' if whole else 'backbone.'
    problem = _first_misfit(theirs, ours, scope)
    if problem is None:
        return
    depths = [_stage_blocks(weights) for weights in (theirs, ours)]
    if depths[0] and depths[1] and depths[0] != depths[1]:
        problem += f' (its stages have {depths[0]} blocks, those of the config {depths[1]})'
    raise UserError(
        f'{path} does not belong to this model: {problem}; '
        'use the config that it was trained with, or another checkpoint'
    )


def _first_misfit(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], scope: str
) -> str | None:
    for key, value in ours.items():
        if not key.startswith(scope):
            continue
        if key not in theirs:
            if scope and '.attention.' in key:
                continue
            return f'it has no {key}'
        if theirs[key].shape != value.shape:
            shapes = tuple(theirs[key].shape), tuple(value.shape)
            return f'{key} is {shapes[0]} in it and {shapes[1]} in the model'
    extra = [key for key in theirs if key.startswith(scope) and key not in ours]
    return f'the model has no {extra[0]}' if extra else None


def _stage_blocks(weights: Mapping[str, Any]) -> str:
    blocks: dict[int, int] = {}
    for key in weights:
        if match := re.match(r'(?:backbone\.)?layer(\d)\.(\d+)\.', key):
            stage, block = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    return ', '.join(str(blocks[stage]) for stage in sorted(blocks))


def _datasets(dataset: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    dataset = innermost(dataset)
    if 'datasets' in dataset:
        return [inner for d in dataset['datasets'] for inner in _datasets(d)]
    return [dataset]


def _check_dataset(cfg: Config, split: str, dataset: MutableMapping[str, Any]) -> None:
    kind = DATASETS.get(dataset['type'])
    if kind is None:
        raise UserError(f'{split}_dataloader: there is no dataset of type {dataset["type"]}')
    bases = {base.__name__ for base in kind.__mro__}
    built_in = kind.__module__.startswith('mmse.')
    root = Path(dataset.get('data_root') or '.')
    if not built_in and not root.is_dir():
        source = next((SOURCES[name] for name in SOURCES if name in bases), None)
        raise UserError(
            f'{split}_dataloader: there is no data folder {root}'
            + (f'; get the data: {source}' if source else '')
            + '; or set data_root to where it is'
        )
    classes = (dataset.get('metainfo') or {}).get('classes') or kind.METAINFO.get('classes')
    if classes:
        _check_num_classes(cfg, len(classes), dataset['type'])
    if built_in:
        return
    if 'CocoDataset' in bases:
        report = check_coco(
            root / dataset['ann_file'], root / dataset['data_prefix']['img'], classes
        )
    elif 'BaseSegDataset' in bases:
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': False})
        pairs = [(item['img_path'], item['seg_map_path']) for item in built]
        report = check_seg_pairs(
            pairs,
            len(built.metainfo['classes']),
            built.ignore_index,
            built.reduce_zero_label,
        )
    else:
        return
    print_log(f'{split} data: {report.summary}', 'current')
    for warning in report.warnings:
        print_log(f'{split} data: {warning}', 'current', level=30)


def _check_num_classes(cfg: Config, expected: int, dataset: str) -> None:
    for place, value in walk(cfg.model.to_dict(), 'model'):
        *path, key = place.split('.')
        if key == 'num_classes' and value != expected and any(p in HEADS for p in path):
            raise UserError(
                f'{place} is {value}, but {dataset} has {expected} classes: set {place}={expected}'
            )
