"""Whether evaluators measure what the data loaders give."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmse.engine.config.kinds import bare_name, leaves, metrics_of
from mmse.utils.errors import UserError


def check_evaluators(cfg: Config, splits: Sequence[str]) -> None:
    """Refuse an evaluator that reads another file or other images than the data set.

    Args:
        cfg: The full config.
        splits: Which of val and test the run will use.

    Raises:
        UserError: It names the evaluator, what it reads and what the data loader reads.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for metric in metrics_of(cfg.get(f'{split}_evaluator')):
            _check_output(metric, split)
            for leaf in leaves(loader['dataset']) if loader is not None else ():
                _check_labels(metric, leaf, split)
            if loader is not None and '://' not in str(metric.get('ann_file') or '://'):
                _check_file(metric, leaves(loader['dataset']), split)


def _check_output(metric: Mapping[str, Any], split: str) -> None:
    keys = {'CocoMetric': 'outfile_prefix', 'IoUMetric': 'output_dir'}
    key = keys.get(bare_name(metric['type']))
    if key and metric.get('format_only') and not metric.get(key):
        raise UserError(
            f'{split}_evaluator.format_only is set, so predictions are written and not measured: '
            f'set {split}_evaluator.{key} to where they go'
        )


def _check_labels(metric: Mapping[str, Any], leaf: Mapping[str, Any], split: str) -> None:
    """Label maps are needed to measure, and must be loaded."""
    if bare_name(metric['type']) != 'IoUMetric' or metric.get('format_only'):
        return
    prefix = leaf.get('data_prefix')
    without = prefix is not None and not prefix.get('seg_map_path') and 'img_path' in prefix
    loads = any('LoadAnnotations' in bare_name(step['type']) for step in leaf['pipeline'])
    if without or not loads:
        found = (
            f'{split}_dataloader.dataset.data_prefix has no seg_map_path'
            if without
            else f'the pipeline of {split}_dataloader loads no label maps'
        )
        raise UserError(
            f'{found}, so there is nothing to measure: set {split}_evaluator.format_only=True and '
            f'{split}_evaluator.output_dir to write predictions, or use tools/predict.py'
        )


def _check_file(
    metric: Mapping[str, Any], datasets: Sequence[Mapping[str, Any]], split: str
) -> None:
    file = Path(metric['ann_file'])
    read = [
        Path(os.path.join(leaf.get('data_root') or '', leaf['ann_file']))
        for leaf in datasets
        if leaf.get('ann_file')
    ]
    if not read:
        return
    if file.resolve() not in [path.resolve() for path in read]:
        raise UserError(
            f'{split}_evaluator reads {file}, but {split}_dataloader {read[0]}: set '
            f'{split}_evaluator.ann_file={read[0]}'
        )
    leaf = datasets[0]
    if leaf.get('indices') is not None and not metric.get('format_only'):
        raise UserError(
            f'{split}_dataloader.dataset.indices={leaf["indices"]} leaves images out that '
            f'{split}_evaluator finds in {file} and counts as missed: leave it out, or write a '
            'file of those images alone'
        )
    if leaf.get('filter_cfg') and not leaf.get('test_mode') and not metric.get('format_only'):
        raise UserError(
            f'{split}_dataloader.dataset.filter_cfg leaves images out that {split}_evaluator finds '
            f'in {file}: set {split}_dataloader.dataset.test_mode=True'
        )
