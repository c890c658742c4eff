"""What the gates do during training, logged beside the losses."""

import logging
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor

from mmse.gates.watch import (
    attentions,
    backbones,
    gate_statistics,
    learned_scalars,
    recorded,
    stage_of,
)
from mmse.registry import HOOKS


@HOOKS.register_module()
class GateStatsHook(Hook):
    """Log the gates of every block and stage, through MMEngine's visualizer.

    Each block logs under ``gates/layerX.Y/``, each stage under ``gates/layerX/``: the ``mean`` and
    the ``spread`` (standard deviation) of the gates over the images of the batch and the channels,
    and the shares ``closed`` (below 0.05) and ``open`` (above 0.95). A block also logs ``alpha``,
    ``T`` and ``weight_of_avg`` where they are learned. The training stays the same to the bit, and
    iterations between two logs take no measurable time.

    Args:
        interval: Training iterations between two logs.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval
        self._watching = True
        self._watched = ExitStack()
        self._gates: dict[str, Tensor] = {}

    def before_train(self, runner: Any) -> None:
        """Warn of a compiled backbone, which would have to be compiled again to be watched."""
        self._watching = all(b._compiled_call_impl is None for b in backbones(runner.model))
        if not self._watching:
            print_log(
                'mmse.GateStatsHook: a compiled backbone is not watched',
                'current',
                level=logging.WARNING,
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start to record the gates if this iteration is to be logged."""
        due = self.every_n_train_iters(runner, self.interval)
        if due and self._watching and is_main_process():
            self._gates = self._watched.enter_context(recorded(runner.model))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the gates of this iteration if they were recorded."""
        self._watched.close()
        if not self._gates:
            return
        scalars: dict[str, float] = {}
        stages: dict[str, list[Tensor]] = {}
        for name, attention in attentions(runner.model):
            if name in self._gates:
                gate = self._gates[name]
                stages.setdefault(stage_of(name), []).append(gate.flatten())
                statistics = gate_statistics(gate) | learned_scalars(attention)
                scalars |= {f'gates/{name}/{key}': value for key, value in statistics.items()}
        for name, gates in stages.items():
            statistics = gate_statistics(torch.cat(gates))
            scalars |= {f'gates/{name}/{key}': value for key, value in statistics.items()}
        self._gates = {}
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
