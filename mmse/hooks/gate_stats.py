"""What the gates do while a network trains, logged beside its losses."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmse.models import ChannelAttention, SEResNet
from mmse.registry import HOOKS

SATURATED = 0.05


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

    # After everything that could change the weights before the iteration, and before the logger.
    priority = 'LOW'

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval
        self._gates: dict[str, Tensor] = {}
        self._watching = True

    def before_train(self, runner: Any) -> None:
        """Say what cannot be watched: another forward pass would be compiled anew."""
        self._watching = all(b._compiled_call_impl is None for b in _backbones(runner.model))
        if not self._watching:
            print_log('mmse.GateStatsHook: a compiled backbone is not watched', 'current', level=30)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Record the gates of this iteration if they are to be logged."""
        if self.every_n_train_iters(runner, self.interval) and self._watching and is_main_process():
            for name, attention in attentions(runner.model):
                self._record(name, attention)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log what was recorded."""
        if not self._gates:
            return
        scalars = {}
        stages: dict[str, list[Tensor]] = {}
        for name, attention in attentions(runner.model):
            vars(attention).pop('gate', None)
            if name in self._gates:
                gate = self._gates[name]
                stages.setdefault(name.partition('.')[0], []).append(gate.flatten())
                scalars |= {f'gates/{name}/{k}': v for k, v in gate_statistics(gate).items()}
                scalars |= {f'gates/{name}/{k}': v for k, v in learned_scalars(attention).items()}
        for name, gates in stages.items():
            statistics = gate_statistics(torch.cat(gates))
            scalars |= {f'gates/{name}/{k}': v for k, v in statistics.items()}
        self._gates.clear()
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def _record(self, name: str, attention: ChannelAttention) -> None:
        def gate(s_avg: Tensor | None, s_max: Tensor | None) -> Tensor:
            g = ChannelAttention.gate(attention, s_avg, s_max)
            self._gates[name] = g.detach().float()
            return g

        # An attribute of the instance stands before the method of the class, until it is removed.
        vars(attention)['gate'] = gate


def gate_statistics(gate: Tensor) -> dict[str, float]:
    """Mean, spread and saturated shares of gates in 0 to 1, of any shape."""
    values = {
        'mean': gate.mean(),
        'spread': gate.std(correction=0),
        'closed': (gate < SATURATED).float().mean(),
        'open': (gate > 1 - SATURATED).float().mean(),
    }
    return {key: float(value) for key, value in values.items()}


def learned_scalars(attention: ChannelAttention) -> dict[str, float]:
    """Alpha, T and the weight of the average squeeze, as far as they are learned."""
    logits = attention.fusion_logits
    values = {
        'alpha': attention.alpha,
        'T': attention.temperature,
        'weight_of_avg': None if logits is None else logits.softmax(0)[0],
    }
    return {k: float(v.detach()) for k, v in values.items() if isinstance(v, Tensor)}


def _backbones(model: nn.Module) -> Iterator[SEResNet]:
    model = model.module if is_model_wrapper(model) else model
    return (m for m in model.modules() if isinstance(m, SEResNet))


def attentions(model: nn.Module) -> Iterator[tuple[str, ChannelAttention]]:
    """Every attention with the name of its block, such as ``layer2.0``."""
    for backbone in _backbones(model):
        for stage in backbone.res_layers:
            for index, block in enumerate(getattr(backbone, stage)):
                if block.attention is not None:
                    yield f'{stage}.{index}', block.attention
