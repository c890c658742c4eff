"""Settings of a config that fail, or never end, once a run has begun."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.engine.config.heads import check_class_weights
from mmse.engine.config.kinds import bare_name, class_of, leaves, parameters, scope_of
from mmse.engine.config.override import walk
from mmse.engine.evaluator_checks import check_evaluators
from mmse.utils.dependencies import require_torch
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

# What the visualizer's backends import when they are built, and how to install it.
BACKENDS = {
    'AimVisBackend': ('aim',),
    'ClearMLVisBackend': ('clearml',),
    'DVCLiveVisBackend': ('dvclive', 'pygit2'),
    'MLflowVisBackend': ('mlflow',),
    'NeptuneVisBackend': ('neptune',),
    'TensorboardVisBackend': ('tensorboard',),
    'WandbVisBackend': ('wandb',),
}


def check_config(cfg: Config, splits: Sequence[str]) -> None:
    """Refuse settings that do not go together; nothing is read or built.

    Args:
        cfg: The full config.
        splits: Which of train, val and test the run will use.

    Raises:
        UserError: A setting that its data set does not take; epochs that never end; weights of
            classes, ignored labels or evaluators that do not fit; a missing visualizer backend.
    """
    if cfg.get('compile'):
        require_torch('2.6', 'compile in the config')
    for split in splits:
        if cfg.get(f'{split}_dataloader') is not None:
            place = f'{split}_dataloader.dataset'
            _check_dataset(cfg[f'{split}_dataloader']['dataset'], place, cfg)
    if 'train' in splits:
        _check_sampler(cfg)
        check_class_weights(cfg.model)
        _check_ignored_label(cfg, splits)
    check_evaluators(cfg, [split for split in splits if split != 'train'])
    for place, kind in walk({'visualizer': cfg.get('visualizer')}):
        needed = BACKENDS.get(bare_name(kind), ()) if place.endswith('.type') else ()
        if missing := [package for package in needed if find_spec(package) is None]:
            raise UserError(
                f'{place} is {bare_name(kind)}, which needs {" and ".join(missing)}: run pip '
                f'install {" ".join(missing)}, or leave it out of visualizer.vis_backends'
            )


def _check_dataset(dataset: Any, place: str, cfg: Config) -> None:
    """Refuse keys that a data set or one of its wrappers does not take."""
    kind = class_of(dataset.get('type'), DATASETS, scope_of(cfg))
    if isinstance(kind, type):
        lost = sorted(set(dataset) - set(parameters(kind)) - {'type', '_scope_'})
        if lost:
            inside = f'; set {place}.dataset.{lost[0]}' if 'dataset' in dataset else ''
            raise UserError(
                f'{place}.{lost[0]}: {bare_name(dataset["type"])} takes no {lost[0]}{inside}'
            )
    classes = (dataset.get('metainfo') or {}).get('classes')
    # The path of a file, too, is a form that MMEngine takes.
    if isinstance(classes, str) and not Path(classes).is_file():
        raise UserError(
            f'{place}.metainfo.classes is the text {classes!r}: write a tuple of names, such as '
            f'({classes!r},) with its comma'
        )
    if 'dataset' in dataset:
        _check_dataset(dataset['dataset'], f'{place}.dataset', cfg)
    for index, inner in enumerate(dataset.get('datasets', ())):
        _check_dataset(inner, f'{place}.datasets.{index}', cfg)


def _check_sampler(cfg: Config) -> None:
    train_cfg = cfg.get('train_cfg') or {}
    by_epoch = bare_name(train_cfg.get('type', '')) == 'EpochBasedTrainLoop'
    sampler = (cfg.train_dataloader.get('sampler') or {}).get('type', '')
    endless = 'Infinite' in bare_name(sampler) or 'MultiSource' in bare_name(sampler)
    if endless and (by_epoch or train_cfg.get('by_epoch')):
        raise UserError(
            f'train_cfg counts in epochs, but train_dataloader.sampler is {bare_name(sampler)}, '
            "whose epochs never end: set train_dataloader.sampler.type to 'DefaultSampler', or "
            'count in iterations with IterBasedTrainLoop and max_iters'
        )


def _check_ignored_label(cfg: Config, splits: Sequence[str]) -> None:
    """The label that is left out must be the same in data, heads, metric and padding."""
    if scope_of(cfg) != 'mmseg':
        return
    parts = {f'{s}_dataloader': cfg.get(f'{s}_dataloader') for s in splits}
    parts |= {f'{s}_evaluator': cfg.get(f'{s}_evaluator') for s in splits if s != 'train'}
    parts['model'] = cfg.model
    parts['data_preprocessor'] = cfg.get('data_preprocessor')
    named = {
        place: value
        for place, value in walk(parts)
        if place.rpartition('.')[2] in ('ignore_index', 'seg_pad_val') and value is not None
    }
    usual = 255  # everywhere in mmseg
    if other := {place: value for place, value in named.items() if value != usual}:
        # Where nothing is written the usual one holds, so one that is named must be named in all.
        values = set(other.values())
        heads = [p for p, v in walk(cfg.model, 'model') if p.endswith('.num_classes')]
        needed = [f'{head.rpartition(".")[0]}.ignore_index' for head in heads]
        needed.append('model.data_preprocessor.seg_pad_val')
        needed += [f'{s}_evaluator.ignore_index' for s in splits if cfg.get(f'{s}_evaluator')]
        unequal = [key for key in needed if named.get(key, usual) not in values]
        if len(values) > 1 or unequal:
            told = name_some([f'{place}={value}' for place, value in sorted(other.items())], 4)
            raise UserError(
                f'the ignored label differs: {told}, but '
                f'{name_some(unequal, 6) or "other places"} have {usual}: set the same everywhere'
            )


def check_batch_of_one(cfg: Config, model: nn.Module) -> None:
    """Refuse batches of one image where a head normalizes one value per channel and image.

    Args:
        cfg: A training config.
        model: Its model.

    Raises:
        UserError: It names the pooling and the batch size to set.
    """
    synchronized = cfg.get('launcher', 'none') != 'none' and torch.cuda.is_available()
    if cfg.train_dataloader.get('batch_size') != 1:
        return
    for name, module in model.named_modules():
        pools = isinstance(module, nn.Sequential) and any(
            isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1))
            for part in module
        )
        norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)] if pools else []
        if norms and not (synchronized and isinstance(norms[0], nn.SyncBatchNorm)):
            raise UserError(
                f'train_dataloader.batch_size is 1, but model.{name} pools an image to one value '
                'per channel, which batch norm cannot normalize alone: set batch_size=2 or more'
            )


def classes_of(cfg: Config, split: str) -> tuple[str, ...] | None:
    """The class names of a split's data by the config; None if it does not say."""
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        return None
    dataset = leaves(loader['dataset'])[0]
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        kind = class_of(dataset['type'], DATASETS, scope_of(cfg))
        classes = getattr(kind, 'METAINFO', {}).get('classes')
    return None if classes is None or isinstance(classes, str) else tuple(map(str, classes))
