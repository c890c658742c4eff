"""Tiny trainings: configs, arguments, and what they leave behind."""

import argparse
import json
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPES = {'size': 64, 'num_train': 8, 'num_val': 4}

# Changes to the shipped configs that make a training take a second.
TINY = {
    'train_dataloader.batch_size': 2,
    'val_dataloader.batch_size': 2,
    'test_dataloader.batch_size': 2,
    'train_cfg.max_iters': 8,
    'train_cfg.val_interval': 4,
    'default_hooks.checkpoint.interval': 3,
    'default_hooks.logger.interval': 1,
    'default_hooks.logger.log_metric_by_epoch': False,
}
TINY_FASTER_RCNN = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
}
TINY_FCN = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.decode_head.in_channels': 64,
    'model.decode_head.channels': 16,
    'model.auxiliary_head.in_channels': 32,
    'model.auxiliary_head.channels': 16,
}
# Defaults of the arguments that train.py and test.py share.
COMMON = {
    'attention': None,
    'cfg_options': None,
    'launcher': 'none',
    'local_rank': 0,
    'verbose': False,
}
# The workers of an iterator that is collected as garbage take five seconds to stop.
IN_PROCESS = {
    f'{split}_dataloader.{key}': value
    for split in ('train', 'val', 'test')
    for key, value in {'num_workers': 0, 'persistent_workers': False}.items()
}


def shapes_at(root: Path, detection: bool) -> dict[str, Any]:
    """Options that put the built-in data, few and small, into ``root``."""
    options: dict[str, Any] = {}
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.dataset.data_root'] = str(root)
        options[f'{split}_dataloader.dataset.shapes'] = SHAPES
        if detection and split != 'train':
            options[f'{split}_evaluator.ann_file'] = f'{root}/annotations/instances_val.json'
    return options


def args_for_train(config: Path | str, work_dir: Path | None, **changes: Any) -> argparse.Namespace:
    """What tools/train.py parses, with its defaults."""
    defaults = {'amp': False, 'auto_scale_lr': False, 'resume': None}
    return _args(config, work_dir, {**defaults, **changes})


def args_for_test(
    config: Path | str, checkpoint: Path | str, work_dir: Path | None, **changes: Any
) -> argparse.Namespace:
    """What tools/test.py parses, with its defaults."""
    return _args(config, work_dir, {'checkpoint': str(checkpoint), 'show_dir': None, **changes})


def _args(
    config: Path | str, work_dir: Path | None, arguments: dict[str, Any]
) -> argparse.Namespace:
    return argparse.Namespace(
        **{**COMMON, **arguments},
        config=str(config),
        work_dir=work_dir and str(work_dir),
    )


def read_scalars(work_dir: Path) -> list[dict[str, Any]]:
    """Every line that the runs in a work dir logged, without what depends on the clock."""
    lines = []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines += [json.loads(line) for line in file.read_text().splitlines()]
    clock = ('time', 'data_time', 'memory')
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]
