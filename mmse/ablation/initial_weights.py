"""The weights that all arms of a seed begin from."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed
from mmengine.runner.checkpoint import load_checkpoint

from mmse.ablation.backbones import our_backbones
from mmse.ablation.records import FinishedTrial, read_trial
from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.config import walk
from mmse.utils.files import replacing

RECORD = 'record.json'  # of a pretraining, in its working folder


@dataclass(frozen=True)
class Pretrained:
    """A plain network that was trained for the trials of a seed.

    Args:
        checkpoint: Its file.
        metrics: All metrics of the last validation of its training.
    """

    checkpoint: str
    metrics: Mapping[str, float]


def read_pretrained(folder: Path) -> Pretrained | None:
    """The network of a pretraining's working folder; None if it is not there, or not whole."""
    record, checkpoint = read_trial(folder / RECORD), latest_checkpoint(folder)
    if not isinstance(record, FinishedTrial) or checkpoint is None:
        return None
    return Pretrained(checkpoint, record.metrics)


def save_initial_weights(cfg: Config, seed: int, path: Path, pretrained: str | None = None) -> None:
    """Write the weights that a trial begins from: those of its network without attention.

    They are drawn from the seed, or pretrained where the config or the study says so. Loading
    them puts the attention at the identity (or, with ``preserve_pretrained=False``, leaves it as
    torch draws it), so all arms of a seed begin with the same function.

    Args:
        cfg: The full config of the trial; its model can be built in the current default scope.
        seed: The seed of the weights that are not pretrained.
        path: The file, which appears whole or not at all.
        pretrained: Checkpoint of a whole model, whose backbone's weights ours begin from in place
            of those that the config names.

    Raises:
        UserError: The weights are those of another backbone.
    """
    plain = copy.deepcopy(cfg.model)
    for node, _ in our_backbones(plain) if pretrained else ():
        node['pretrained'] = None
        node['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')
    for _, node in walk({'model': plain}):
        if isinstance(node, dict) and node.get('attention') is not None:
            node['attention'] = None
    set_random_seed(seed)
    model = MODELS.build(plain)
    model.init_weights()
    if cfg.get('load_from'):
        load_checkpoint(model, cfg.load_from, map_location='cpu')
    with replacing(path) as part:
        torch.save({'state_dict': model.state_dict()}, part)


def keep_drawn_attention(cfg: Config) -> None:
    """Let the attention of our backbones keep the weights that torch draws."""
    for node, _ in our_backbones(cfg.model):
        node['preserve_pretrained'] = False
