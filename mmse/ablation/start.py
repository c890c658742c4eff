"""The start that all arms of a seed share."""

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed
from mmengine.runner.checkpoint import load_checkpoint

from mmse.engine.config import walk
from mmse.models import SEResNet


def save_start(cfg: Config, seed: int, path: Path) -> None:
    """Write the weights that a trial starts from: those of its network without attention.

    They are drawn from the seed, or pretrained where the config says so; loading them puts the
    attention at the identity (or, with ``preserve_pretrained=False``, leaves it as torch draws it),
    so that all arms of a seed begin with the same function.

    Args:
        cfg: The full config of the trial; its model can be built in the current default scope.
        seed: The seed of the weights that are not pretrained.
        path: The file, which appears whole or not at all.
    """
    plain = copy.deepcopy(cfg.model)
    for _, node in walk({'model': plain}):
        if isinstance(node, dict) and node.get('attention') is not None:
            node['attention'] = None
    set_random_seed(seed)
    model = MODELS.build(plain)
    model.init_weights()
    if cfg.get('load_from'):
        load_checkpoint(model, cfg.load_from, map_location='cpu')
    part = path.with_suffix('.part')
    torch.save({'state_dict': model.state_dict()}, part)
    part.replace(path)


def set_default_start(cfg: Config) -> None:
    """Let the attention of our backbones keep the start that torch draws."""
    for _, node in walk({'model': cfg.model}):
        kind = node.get('type') if isinstance(node, dict) else None
        resolved = MODELS.get(kind) if isinstance(kind, str) else kind
        if isinstance(resolved, type) and issubclass(resolved, SEResNet):
            node['preserve_pretrained'] = False
