"""What the gates do while a network trains, logged beside its losses."""

from contextlib import ExitStack
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor

from mmse.gates.watch import attentions, backbones, gate_statistics, learned_scalars, recorded
from mmse.registry import HOOKS


@HOOKS.register_module()
class GateStatsHook(Hook):
    """Log the gates of every block and stage, through MMEngine's visualizer.

    For each block ``gates/layerX.Y/...``, for each stage ``gates/layerX/...``: the ``mean`` and the
    ``spread`` (standard deviation) of the gate over the batch's images and the channels, and the
    shares ``closed`` (below 0.05) and ``open`` (above 0.95); of a block also ``alpha``, ``T`` and
    ``weight_of_avg``, where they are learned. It only looks: the result of the training stays the
    same to the bit, and iterations between two logs cost nothing.

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
        """Say what cannot be watched: another forward pass would be compiled anew."""
        self._watching = all(b._compiled_call_impl is None for b in backbones(runner.model))
        if not self._watching:
            print_log('mmse.GateStatsHook: a compiled backbone is not watched', 'current', level=30)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Record the gates of this iteration if they are to be logged."""
        due = self.every_n_train_iters(runner, self.interval)
        if due and self._watching and is_main_process():
            self._gates = self._watched.enter_context(recorded(runner.model))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log what was recorded."""
        self._watched.close()
        if not self._gates:
            return
        scalars: dict[str, float] = {}
        stages: dict[str, list[Tensor]] = {}
        for name, attention in attentions(runner.model):
            if name in self._gates:
                gate = self._gates[name]
                stages.setdefault(name.partition('.')[0], []).append(gate.flatten())
                statistics = gate_statistics(gate) | learned_scalars(attention)
                scalars |= {f'gates/{name}/{key}': value for key, value in statistics.items()}
        for name, gates in stages.items():
            statistics = gate_statistics(torch.cat(gates))
            scalars |= {f'gates/{name}/{key}': value for key, value in statistics.items()}
        self._gates = {}
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
