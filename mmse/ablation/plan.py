"""From a study to its trials: every arm's full config, checked against what it overrides."""

import copy
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS, MODELS, init_default_scope

from mmse.ablation.fingerprint import code_fingerprint, digest
from mmse.ablation.study import Arm, Study, Task
from mmse.engine.config import apply_own_data, override, read_config, swap_backbone, walk
from mmse.models import SEResNet
from mmse.models.resolve import resolve_stages
from mmse.models.settings import KEYS, AttentionSettings, describe
from mmse.utils.errors import UserError
from mmse.utils.text import nearest

# Keys of a config that leave the result as it is.
SHAPELESS = (
    *('experiment_name', 'filename', 'launcher', 'log_level', 'log_processor', 'vis_backends'),
    *('visualizer', 'work_dir'),
)
# Hooks that only look.
OBSERVERS = (
    *('checkpoint', 'logger', 'timer', 'visualization'),
    *('mmse.DrawHook', 'mmse.GateStatsHook'),
)
COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@dataclass(frozen=True)
class Variant:
    """One arm on one task.

    Args:
        task: The task.
        arm: The arm.
        cfg: Its full training config, without a seed.
        start: How its attention starts, ``'identity'`` or ``'default'``.
    """

    task: Task
    arm: Arm
    cfg: Config
    start: str

    @cached_property
    def attention(self) -> str:
        """The resolved attention of its backbones, in words."""
        return '; '.join(map(_in_words, _resolved(self.cfg)))

    @cached_property
    def recipe(self) -> str:
        """A hash of all in the config that shapes the result, the seed apart."""
        shaping: dict[str, Any] = copy.deepcopy(self.cfg.to_dict())
        for node, _ in _backbones(shaping['model']):
            node.pop('attention', None)
        for key in SHAPELESS:
            shaping.pop(key, None)
        for key in OBSERVERS:
            (shaping.get('default_hooks') or {}).pop(key, None)
        hooks = shaping.get('custom_hooks') or []
        shaping['custom_hooks'] = [hook for hook in hooks if hook['type'] not in OBSERVERS]
        (shaping.get('randomness') or {}).pop('seed', None)
        return digest([shaping, [_forms(b) for b in _resolved(self.cfg)], self.start])


@dataclass(frozen=True)
class Trial:
    """One training run: a variant with a seed."""

    variant: Variant
    seed: int

    @cached_property
    def id(self) -> str:
        """A name that another config, seed or code does not share."""
        parts = [self.variant.task.name, self.variant.arm.name, f'seed{self.seed}']
        parts.append(digest([self.variant.recipe, self.seed, code_fingerprint()])[:10])
        return '-'.join(re.sub(r'[^A-Za-z0-9.+=]+', '_', part) for part in parts if part)


def resolve(study: Study) -> list[Variant]:
    """The full config of every arm on every task.

    Raises:
        UserError: An override does not fit its base config, arms resolve to the same, or the
            evaluator does not give the metric.
    """
    variants = []
    for task in study.tasks:
        base = _read_base(task)
        _check_metric(task, base)
        _check_overrides(base, task.overrides, f'overrides, {task.base}')
        known: dict[str, str] = {}
        for arm in study.arms:
            _check_overrides(base, arm.overrides, f'arm {arm.name!r}, {task.base}')
            cfg = copy.deepcopy(base)
            override(cfg, copy.deepcopy({**task.overrides, **arm.overrides}), task.base)
            apply_own_data(cfg)
            variant = Variant(task, arm, cfg, study.start)
            if (same := known.setdefault(variant.recipe, arm.name)) != arm.name:
                raise UserError(
                    f'the arms {same!r} and {arm.name!r} resolve to the same config '
                    f'({variant.attention}): change one, or exclude it'
                )
            variants.append(variant)
    return variants


def trials_of(study: Study, variants: Sequence[Variant]) -> list[Trial]:
    """All trials, seed by seed, so that what is finished is comparable."""
    return [Trial(variant, seed) for seed in study.seeds for variant in variants]


def _read_base(task: Task) -> Config:
    """The training config of a task as it is; a plain backbone in it becomes ours."""
    cfg = read_config(task.base)
    for key in ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator'):
        if cfg.get(key) is None:
            raise UserError(f'{task.base} has no {key}: give the config of a whole run')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if not any(True for _ in _backbones(cfg.model)):
        swap_backbone(cfg, None)
    return cfg


def _backbones(model: Any) -> Iterator[tuple[Any, type[SEResNet]]]:
    """Every dict of a model that builds one of our backbones."""
    for _, node in walk({'model': model}):
        if isinstance(node, Mapping) and (kind := _class_of(node)) and issubclass(kind, SEResNet):
            yield node, kind


def _class_of(node: Mapping[str, Any]) -> type[Any] | None:
    kind = node.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return kind if inspect.isclass(kind) else None


def _forms(stages: list[list[AttentionSettings | None]]) -> list[list[dict[str, Any] | None]]:
    return [[None if b is None else b.to_dict() for b in blocks] for blocks in stages]


def _resolved(cfg: Config) -> list[list[list[AttentionSettings | None]]]:
    """The attention of every block of every stage of each backbone."""
    backbones = []
    for node, kind in _backbones(cfg.model):
        settings, depth = kind.arch_settings, node.get('depth')
        if depth not in settings:
            raise UserError(f'depth of a backbone: {depth!r} given; allowed: {list(settings)}')
        with warnings.catch_warnings():
            # A factorial grid makes keys without effect, such as the fusion of one squeeze.
            warnings.simplefilter('ignore')
            blocks = settings[depth][1][: node.get('num_stages', 4)]
            backbones.append(resolve_stages(node.get('attention'), blocks))
    return backbones


def _in_words(stages: list[list[AttentionSettings | None]]) -> str:
    texts = [[describe(block) for block in blocks] for blocks in stages]
    if len({text for blocks in texts for text in blocks}) == 1:
        return texts[0][0]
    lines = []
    for i, blocks in enumerate(texts):
        runs = [f'{len(list(run))} x {text}' for text, run in groupby(blocks)]
        lines.append(f'layer{i + 1}: ' + ', then '.join(runs))
    return '; '.join(lines)


def _check_overrides(cfg: Config, overrides: Mapping[str, Any], where: str) -> None:
    """Refuse a key that neither the config has nor the class that would get it."""
    there = dict(walk(cfg))
    for key in overrides:
        parent, _, name = key.rpartition('.')
        if key in there:
            continue
        # An attention's keys and entries are checked when it is resolved.
        if re.fullmatch(r'(.*\.)?attention(\.\d+)*', parent) and (parent in there):
            if name in KEYS or name == 'preset' or name.isdigit():
                continue
            raise UserError(f'{where}: {key}' + nearest(name, [*KEYS, 'preset']))
        kind = _class_of(there[parent]) if isinstance(there.get(parent), Mapping) else None
        if kind and name in _parameters(kind):
            continue
        raise UserError(f'{where}: the config has no {key}' + nearest(key, list(there)))


def _parameters(kind: type) -> set[str]:
    inits = [vars(base)['__init__'] for base in kind.__mro__ if '__init__' in vars(base)]
    return {name for init in inits for name in inspect.signature(init).parameters}


def _check_metric(task: Task, cfg: Config) -> None:
    """Refuse a metric that the evaluator is known not to give; others show in the first trial."""
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
    if task.metric not in given:
        raise UserError(
            f'metric: the evaluator of {task.base} does not give {task.metric}'
            + nearest(task.metric, given)
        )


def _metrics_of(evaluator: Mapping[str, Any], kinds: set[str]) -> list[str] | None:
    """What mmdet's CocoMetric and mmseg's IoUMetric return, as their source says."""
    if 'CocoMetric' in kinds:
        metrics = evaluator.get('metric', 'bbox')
        items = evaluator.get('metric_items') or [
            'mAP',
            'mAP_50',
            'mAP_75',
            'mAP_s',
            'mAP_m',
            'mAP_l',
        ]
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
