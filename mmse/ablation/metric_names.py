"""Which metrics the evaluators of a config give, as far as their classes are known."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS

from mmse.utils.errors import UserError
from mmse.utils.text import nearest

# What mmseg's DepthMetric, mmdet's CrowdHumanMetric and tracking metrics, and mmpose's measure as
# errors, and what is called one.
ERRORS = re.compile(
    r'(.*_)?loss(_.*)?|.*(error|miss_rate|mpjpe|perplexity)|abs_rel|sq_rel|(r?mse|mae)(_log)?|'
    r'log10|silog|mMR|(ID)?F[PN]|IDSw|Frag|EPE|NME|NLL',
    re.I,
)


def check_direction(metric: str) -> None:
    """Refuse a metric that is the better the smaller it is: verdicts say *helps* of a larger one.

    Raises:
        UserError: It names the metric.
    """
    if ERRORS.fullmatch(metric.rpartition('/')[2]):
        raise UserError(
            f'metric: {metric} is the better the smaller it is; allowed: a metric that is the '
            'better the larger it is (as a secondary outcome it may stand)'
        )


def check_metric(metric: str, cfg: Config, name: str) -> None:
    """Refuse a metric that no evaluator gives; where one is unknown, the first trial will tell.

    Args:
        metric: The metric's name, such as ``'coco/bbox_mAP'``.
        cfg: The training config; its default scope must be set.
        name: What the config is called in errors.

    Raises:
        UserError: It names the metric that may be meant, or some that there are.
    """
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    given: list[str] = []
    for evaluator in evaluators:
        with METRICS.switch_scope_and_registry(None) as registry:
            kind = registry.get(evaluator['type'])
        names = _metrics_of(evaluator, {base.__name__ for base in kind.__mro__}) if kind else None
        if names is None:
            return
        prefix = evaluator.get('prefix') or kind.default_prefix
        given += [f'{prefix}/{name}' if prefix else name for name in names]
    if metric not in given:
        raise UserError(
            f'metric: the evaluator of {name} does not give {metric}' + nearest(metric, given)
        )


def _metrics_of(evaluator: Mapping[str, Any], kinds: set[str]) -> list[str] | None:
    """What mmdet's CocoMetric and mmseg's IoUMetric return, as their source says."""
    if 'CocoMetric' in kinds:
        metrics = evaluator.get('metric', 'bbox')
        sizes = [f'mAP{size}' for size in ('', '_50', '_75', '_s', '_m', '_l')]
        items = evaluator.get('metric_items') or sizes
        proposals = [f'AR@{n}' for n in (*evaluator.get('proposal_nums', (100, 300, 1000)),)]
        return [
            name
            for metric in ([metrics] if isinstance(metrics, str) else metrics)
            for name in (
                proposals if metric.startswith('proposal') else [f'{metric}_{i}' for i in items]
            )
        ]
    if 'IoUMetric' in kinds:
        names = {
            'mIoU': ['mIoU', 'mAcc'],
            'mDice': ['mDice', 'mAcc'],
            'mFscore': ['mFscore', 'mPrecision', 'mRecall'],
        }
        return ['aAcc', *(n for m in evaluator.get('iou_metrics', ['mIoU']) for n in names[m])]
    return None
