"""What a trial's result depends on, and the name that follows from it.

That is the part of its config that shapes the result, its seed, its data, and ``RESULTS_VERSION``
for the arithmetic. Source files have no part in it, so results outlive a refactoring.
"""

import copy
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmse.ablation.backbones import our_backbones, resolved_attention
from mmse.engine.config import walk
from mmse.engine.config.override import MEANINGFUL

# Raise it by one when the same config, seed and data train to other numbers than before, beyond
# rounding: trials of different versions are not compared. tests/ablation/test_golden_losses.py
# fails when that has happened.
RESULTS_VERSION = 1

# Top-level keys that leave a trial's result as it is: where and under which name it runs, what it
# logs, what only a test uses, and what is already built into other keys.
SHAPELESS = {
    *('cfg', 'experiment_name', 'launcher', 'log_level', 'log_processor', 'self', 'visualizer'),
    *('work_dir', 'test_cfg', 'test_dataloader', 'test_evaluator', 'tta_model', 'tta_pipeline'),
    'own_data',
}
# Hooks that only look.
OBSERVERS = (
    *('checkpoint', 'logger', 'timer', 'visualization'),
    *('mmse.DrawHook', 'mmse.GateStatsHook'),
)


def digest(what: Any) -> str:
    """A hash of nested dicts and lists of plain values: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def shaping_part(cfg: Config) -> dict[str, Any]:
    """The part of a training config that shapes the result, without seed and attention.

    Variables of the config file are not in it: what they set is in the keys that use them.
    """
    shaping: dict[str, Any] = {
        key: value
        for key, value in copy.deepcopy(cfg.to_dict()).items()
        if key in MEANINGFUL - SHAPELESS
    }
    for node, _ in our_backbones(shaping['model']):
        node.pop('attention', None)
    if 'data_preprocessor' in shaping['model']:  # the model's own is the one that is used
        shaping.pop('data_preprocessor', None)
    for key in OBSERVERS:
        (shaping.get('default_hooks') or {}).pop(key, None)
    hooks = shaping.get('custom_hooks') or []
    shaping['custom_hooks'] = [hook for hook in hooks if hook['type'] not in OBSERVERS]
    (shaping.get('randomness') or {}).pop('seed', None)
    optimizer = (shaping.get('optim_wrapper') or {}).get('optimizer') or {}
    if 'fused' in optimizer:  # a form of the same step, which not every version of torch has
        optimizer['fused'] = True
    without_scope: dict[str, Any] = _without_scope(shaping, cfg.get('default_scope', 'mmengine'))
    return without_scope


def _without_scope(node: Any, scope: str) -> Any:
    """Names of classes without the default scope, in which they are looked up anyway."""
    if isinstance(node, dict):
        return {
            key: value.removeprefix(f'{scope}.')
            if key == 'type' and isinstance(value, str)
            else _without_scope(value, scope)
            for key, value in node.items()
            if (key, value) != ('_scope_', scope)
        }
    if isinstance(node, list | tuple):
        return [_without_scope(value, scope) for value in node]
    return node


def recipe_of(cfg: Config, start: str) -> str:
    """A hash of all in a config that shapes the result, the seed apart.

    The attention counts in its resolved form: two ways to write the same settings are one recipe.

    Args:
        cfg: The full training config of an arm.
        start: How its attention starts, ``'identity'`` or ``'default'``.
    """
    attention = [
        [[block and block.to_dict() for block in stage] for stage in backbone]
        for backbone in resolved_attention(cfg)
    ]
    return digest([shaping_part(cfg), attention, start])


def weight_files(cfg: Config) -> dict[str, str]:
    """The local files that a model and its weights come from, each with a hash of its content.

    They stand under ``load_from``, ``init_cfg``, ``pretrained``, ``teacher_ckpt`` and the like.

    Args:
        cfg: The full training config. Weights that have to be downloaded are known by their name,
            which is part of the recipe.
    """
    places = walk({'load_from': cfg.get('load_from'), 'model': cfg.model})
    return {
        place: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for place, file in places
        if isinstance(file, str) and os.path.isfile(file)
    }


def trial_id(task: str, arm: str, seed: int, recipe: str, data: str) -> str:
    """The name of a trial, which is also that of its file and of its working folder.

    Args:
        task: Name of the task, empty if the study has one.
        arm: Name of the arm.
        seed: The seed.
        recipe: See ``recipe_of``.
        data: Digest of the data; see ``mmse.datasets.digest``.
    """
    hashed = digest([recipe, seed, RESULTS_VERSION, data])[:10]
    parts = [part for part in (task, arm, f'seed{seed}', hashed) if part]
    return '-'.join(re.sub(r'[^A-Za-z0-9.+=]+', '_', part) for part in parts)
