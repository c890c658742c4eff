"""From a study to its trials: every arm's full config, checked against what it overrides."""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmse.ablation.backbones import attention_in_words, class_of, our_backbones
from mmse.ablation.identity import digest, recipe_of, trial_id, weight_files
from mmse.ablation.metric_names import check_direction, check_metric
from mmse.ablation.outcomes import is_metric
from mmse.ablation.study import Arm, Study
from mmse.ablation.tasks import Pretraining, Task
from mmse.datasets.digest import data_digest
from mmse.engine.config import apply_own_data, override, read_config, swap_backbone, walk
from mmse.engine.config.swap import give_attention_a_rate
from mmse.models.settings import KEYS
from mmse.utils.errors import UserError
from mmse.utils.text import nearest


@dataclass(frozen=True)
class Variant:
    """One arm on one task.

    Args:
        task: The task.
        arm: The arm.
        cfg: Its full training config, without a seed.
        start: How its attention starts, ``'identity'`` or ``'default'``.
        pretraining: The training that gives its backbone's weights, if there is one.
    """

    task: Task
    arm: Arm
    cfg: Config
    start: str
    pretraining: 'Variant | None' = None

    @cached_property
    def attention(self) -> str:
        """The resolved attention of its backbones, in words."""
        return attention_in_words(self.cfg)

    @cached_property
    def recipe(self) -> str:
        """A hash of all in the config that shapes the result, the seed apart."""
        own = recipe_of(self.cfg, self.start)
        return digest([own, self.pretraining.recipe]) if self.pretraining else own


@dataclass(frozen=True)
class Trial:
    """One training run.

    Args:
        variant: What is trained.
        seed: Its seed.
        data: Digest of its data; see ``mmse.datasets.digest``.
        pretraining: The trial that gives its backbone's weights, if there is one.
    """

    variant: Variant
    seed: int
    data: str
    pretraining: 'Trial | None' = None

    @cached_property
    def id(self) -> str:
        """A name that no trial of another config, seed, data or results version has."""
        variant = self.variant
        return trial_id(variant.task.name, variant.arm.name, self.seed, variant.recipe, self.data)


def resolve(study: Study) -> list[Variant]:
    """The full config of every arm on every task.

    Raises:
        UserError: An override does not fit its base config, two arms resolve to the same config, or
            the evaluator does not give the metric.
    """
    variants = []
    for task in study.tasks:
        # First: what is read last sets the default scope, and it may be of another codebase.
        pretraining = _pretraining(task, task.pretraining) if task.pretraining else None
        base = _read_base(task)
        check_direction(task.metric)
        for metric in (task.metric, *(o.of for o in task.secondary if is_metric(o))):
            check_metric(metric, base, task.base)
        _check_overrides(base, task.overrides, f'overrides, {task.base}')
        known: dict[str, str] = {}
        for arm in study.arms:
            _check_overrides(base, arm.overrides, f'arm {arm.name!r}, {task.base}')
            cfg = copy.deepcopy(base)
            override(cfg, copy.deepcopy({**task.overrides, **arm.overrides}), task.base)
            if task.attention_lr_mult is not None:
                give_attention_a_rate(cfg, task.attention_lr_mult)
            apply_own_data(cfg, task.base)
            _check_whole(cfg, task.base)
            if pretraining and cfg.get('load_from'):
                raise UserError(
                    f'{task.base} has load_from={cfg.load_from!r} beside the pretraining of the '
                    'study: leave one out'
                )
            variant = Variant(task, arm, cfg, study.start, pretraining)
            if (same := known.setdefault(variant.recipe, arm.name)) != arm.name:
                raise UserError(
                    f'the arms {same!r} and {arm.name!r} resolve to the same config '
                    f'({variant.attention}): change one, or exclude it'
                )
            variants.append(variant)
    return variants


def trials_of(variants: Sequence[Variant], seeds: Sequence[int]) -> list[Trial]:
    """All trials, seed by seed, so that what is finished is comparable.

    Raises:
        UserError: The data of a variant are not there or cannot be read.
    """
    read: dict[str, str] = {}  # arms seldom differ in their data, which are read once
    data = {
        id(each): _data_of(each, read)
        for variant in variants
        for each in (variant, variant.pretraining)
        if each is not None
    }

    def trial(variant: Variant, seed: int) -> Trial:
        before = variant.pretraining
        first = trial(before, seed) if before is not None else None
        return Trial(variant, seed, data[id(variant)], first)

    return [trial(variant, seed) for seed in seeds for variant in variants]


def _data_of(variant: Variant, read: dict[str, str]) -> str:
    """Digest of what a variant reads; ``read`` has those that are known already."""
    cfg = variant.cfg
    loaders = [cfg[f'{split}_dataloader']['dataset'] for split in ('train', 'val')]
    weights = weight_files(cfg)
    key = digest([loaders, cfg.val_evaluator, weights])
    if key not in read:
        own = data_digest(cfg)
        read[key] = digest([own, weights]) if weights else own
    if variant.pretraining is None:
        return read[key]
    return digest([read[key], _data_of(variant.pretraining, read)])


def _pretraining(task: Task, pretraining: Pretraining) -> Variant:
    """The training of the plain network that the arms of a task start from."""
    own = replace(
        task,
        base=pretraining.base,
        metric=pretraining.metric,
        overrides=pretraining.overrides,
        secondary=(),
        pretraining=None,
    )
    cfg = _read_base(own)
    check_metric(own.metric, cfg, own.base)
    _check_overrides(cfg, own.overrides, f'pretraining.overrides, {own.base}')
    override(cfg, copy.deepcopy(own.overrides), own.base)
    apply_own_data(cfg, own.base)
    _check_whole(cfg, own.base)
    for node, _ in our_backbones(cfg.model):
        node['attention'] = None
    return Variant(own, Arm('pretraining', {}, {}), cfg, 'identity')


def _read_base(task: Task) -> Config:
    """The training config of a task as it is; a plain backbone in it becomes ours."""
    cfg = read_config(task.base)
    _check_whole(cfg, task.base)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if not any(True for _ in our_backbones(cfg.model)):
        swap_backbone(cfg, None)
    return cfg


def _check_whole(cfg: Config, name: str) -> None:
    """Refuse a config without what a trial needs: a model, and data to train and validate on."""
    for key in ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator'):
        if cfg.get(key) is None:
            raise UserError(f'{name} has no {key}: give the config of a whole run')


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
        kind = class_of(there[parent]) if isinstance(there.get(parent), Mapping) else None
        if kind and name in _parameters(kind):
            continue
        raise UserError(f'{where}: the config has no {key}' + nearest(key, list(there)))


def _parameters(kind: type) -> set[str]:
    inits = [vars(base)['__init__'] for base in kind.__mro__ if '__init__' in vars(base)]
    return {name for init in inits for name in inspect.signature(init).parameters}
