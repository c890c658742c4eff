"""What MMEngine's optimizer constructor gives to the parameters of backbones of a config."""

import copy
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from swapped_backbones import family
from torch import nn

from mmse.engine.config.attention_params import NO_DECAY

Rates = dict[str, tuple[float, float]]
# The parts of a model that hold ResNets, by key, and the config of the optimizer wrapper.
Training = tuple[dict[str, Any], dict[str, Any]]
FULL = 'sepp_v2_residual'


def training_of(cfg: Config) -> Training:
    """What of a config decides how its ResNets are trained."""
    model = cfg.model.to_dict()
    held = {k: part for k, part in model.items() if any(family(part)) or any(_ours(part))}
    return held, copy.deepcopy(dict(cfg.get('optim_wrapper') or {}))


def what_decides_rates(training: Training) -> str:
    """A training's optimizer, and those settings of its ResNets that decide what is trained."""
    held, wrapper = training
    settings = ('depth', 'num_stages', 'frozen_stages', 'norm_cfg', 'dcn')
    shapes = [(key, [node.get(name) for name in settings]) for key, node, _ in family(held)]
    return f'{wrapper} {sorted(held)} {shapes}'


def rates_mismatch(before: Training, after: Training) -> str | None:
    """Why the rates after a swap are not those before it; None if they are.

    The weights of the attention get the learning rate of their block, and its scalars get that
    without decay.
    """
    if not before[1]:
        return None
    theirs, ours, full = _rates(before), _rates(after), _rates(after, FULL)
    for name, rate in theirs.items():
        if ours.get(name) != rate or full[name] != rate:
            return f'{name} had {rate} and has {ours.get(name)}, with attention {full[name]}'
    for name in full.keys() - theirs.keys():
        block, _, own = name.partition('.attention.')
        rate, decay = theirs[f'{block}.conv1.weight']
        if f'attention.{own}' in NO_DECAY and 'constructor' not in after[1]:
            decay = 0.0
        if not own.endswith('bias') and full[name] != (rate, decay):
            return f'{name} has {full[name]}, not {(rate, decay)}'
    return None


def _rates(training: Training, attention: Any = None) -> Rates:
    """Learning rate and weight decay of each trainable parameter of what holds the ResNets."""
    held, wrapper = copy.deepcopy(training)
    for backbone in _ours(held):
        backbone['attention'] = attention
    # Without a process group SyncBN is BN in training too.
    held = ConfigDict(json.loads(json.dumps(held).replace('SyncBN', 'BN')))
    with (  # no weight is needed
        mock.patch('torch.nn.init.kaiming_uniform_'),
        mock.patch.object(ModulatedDeformConv2d, 'init_weights'),
    ):
        model = nn.ModuleDict({key: MODELS.build(part) for key, part in held.items()})
    wrapper = {k: v for k, v in wrapper.items() if k not in ('loss_scale', 'dtype')}
    with (
        mock.patch('mmengine.optim.optimizer.default_constructor.print_log'),
        # Torch compares each group's parameters with those of all before it.
        mock.patch.object(torch.optim.Optimizer, 'add_param_group', _append),
    ):
        groups = build_optim_wrapper(
            model, {**wrapper, 'type': 'OptimWrapper'}
        ).optimizer.param_groups
    given = {
        id(param): (group['lr'], group['weight_decay'])
        for group in groups
        for param in group['params']
    }
    return {n: given[id(p)] for n, p in model.named_parameters() if p.requires_grad}


def _append(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    params = group['params']
    params = [params] if isinstance(params, torch.Tensor) else list(params)
    optimizer.param_groups.append({**optimizer.defaults, **group, 'params': params})


def _ours(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if str(node.get('type')).startswith('mmse.'):
            yield node
        for value in node.values():
            yield from _ours(value)
