"""Evaluators that fit a user's own data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmse.datasets.coco_file import evaluation_faults, read_coco
from mmse.engine.config.kinds import bare_name, metrics_of, same

# Metrics that take any data of their task; the others belong to one public data set.
FITTING = {
    'mmdet': ('CocoMetric', 'VOCMetric', 'DumpResults', 'DumpDetResults', 'DumpProposals'),
    'mmseg': ('IoUMetric', 'DumpResults'),
}


def fit_evaluator(cfg: Config, below: Config, split: str, scope: str, ann_file: str | None) -> None:
    """Make the metrics of a split read the user's data.

    A metric that the base has for data of another kind becomes that of COCO or the IoU, which is
    logged; one that the user sets stays.

    Args:
        cfg: The config; changed in place.
        below: What its file inherits.
        split: val or test.
        scope: mmdet or mmseg.
        ann_file: The split's annotation file; None in segmentation.
    """
    key = f'{split}_evaluator'
    before = metrics_of(below.get(key))
    kept: list[Any] = []
    fitted: Mapping[str, Any] | None = None
    for metric in metrics_of(cfg.get(key)):
        theirs = not any(same(metric, other) for other in before)
        if bare_name(metric['type']) in FITTING[scope] or theirs:
            if 'ann_file' in metric and metric['ann_file'] in [m.get('ann_file') for m in before]:
                metric['ann_file'] = ann_file
            if _is_mmdets(metric['type']) and metric.get('ann_file') is not None:
                metric['type'] = _coco_metric(metric['ann_file'], bool(metric.get('classwise')))
            kept.append(metric)
        elif fitted is None:
            fitted = _fitted(cfg, metric, scope, ann_file)
            print_log(
                f'own_data: {key}: {bare_name(metric["type"])} -> {bare_name(fitted["type"])}',
                'current',
            )
    if fitted is not None and not any(bare_name(m['type']) == 'CocoMetric' for m in kept):
        kept.append(ConfigDict(fitted))
    if kept:
        cfg[key] = kept[0] if len(kept) == 1 else kept


def _fitted(
    cfg: Config, metric: Mapping[str, Any], scope: str, ann_file: str | None
) -> dict[str, Any]:
    if scope == 'mmseg':
        return {'type': 'mmseg.IoUMetric', 'iou_metrics': ['mIoU']}
    given = metric.get('metric')
    known = [given] if isinstance(given, str) else list(given or ())
    kinds = [kind for kind in known if kind in ('bbox', 'segm')]
    if not kinds:
        kinds = ['bbox', 'segm'] if "'mask_head'" in repr(cfg.model.to_dict()) else ['bbox']
    return {
        'type': _coco_metric(str(ann_file), classwise=False),
        'ann_file': ann_file,
        'metric': kinds,
    }


def _is_mmdets(kind: Any) -> bool:
    """Whether a metric's type is mmdet's ``CocoMetric``."""
    if isinstance(kind, str):
        return kind in ('CocoMetric', 'mmdet.CocoMetric')
    return bare_name(kind) == 'CocoMetric' and kind.__module__.startswith('mmdet.')


def _coco_metric(ann_file: str, classwise: bool) -> str:
    """mmdet's metric, or ours where COCOeval would be misled by the ids in the file."""
    readable = Path(ann_file).is_file()
    misled = readable and evaluation_faults(read_coco(ann_file, without_objects=True), classwise)
    return 'mmse.CocoMetric' if misled else 'mmdet.CocoMetric'
