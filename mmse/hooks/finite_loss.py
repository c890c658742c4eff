"""A training whose loss is no number ends, instead of going on to the end with broken weights."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor

from mmse.registry import HOOKS
from mmse.utils.errors import UserError


class DivergedError(UserError):
    """The loss or the weights of a training are no longer finite."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the training when its loss becomes NaN or infinite.

    On a GPU the losses are looked at every ``interval`` iterations, because each look waits for the
    device, and before a checkpoint is saved; on a CPU at every iteration. In mixed precision a step
    whose gradients overflow is skipped: there the training stops when its weights are broken.

    Args:
        interval: Iterations between two looks on a GPU.
    """

    def __init__(self, interval: int = 20) -> None:
        self.interval = interval
        self._losses: list[tuple[int, Mapping[str, Tensor]]] = []

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Remember the losses of an iteration, and look at them when it is time.

        Raises:
            DivergedError: (a UserError) It names the iteration, the losses and what to look at.
        """
        if not outputs or 'loss' not in outputs:
            return
        self._losses.append((runner.iter + 1, outputs))
        if outputs['loss'].device.type == 'cpu' or (runner.iter + 1) % self.interval == 0:
            broken = self._broken()
            all_reduce(broken, op='max')  # or one process would wait for another that has ended
            self._stop_if(broken, runner)
            self._losses = []

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save no weights that are broken; MMEngine asks in the main process only."""
        if self._losses:
            self._stop_if(self._broken(), runner)

    def _broken(self) -> Tensor:
        totals = torch.stack([log['loss'].detach() for _, log in self._losses])
        return (~torch.isfinite(totals)).any().int()

    def _stop_if(self, broken: Tensor, runner: Any) -> None:
        if not broken:
            return
        if hasattr(runner.optim_wrapper, 'loss_scaler') and _is_finite(runner.model):
            print_log('a loss was not finite; its step was skipped', 'current', level=30)
            return
        raise DivergedError(_sentence(runner, self._losses))


def _is_finite(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def _sentence(runner: Any, losses: list[tuple[int, Mapping[str, Tensor]]]) -> str:
    iteration, log = next(
        (entry for entry in losses if not torch.isfinite(entry[1]['loss'])), losses[-1]
    )
    values = [
        f'{name}={float(value):g}'
        for name, value in log.items()
        if 'loss' in name and name != 'loss' and not torch.isfinite(torch.as_tensor(value)).all()
    ]
    rate = max(rate for rates in runner.optim_wrapper.get_lr().values() for rate in rates)
    return (
        f'the loss is not finite at iteration {iteration} '
        f'({", ".join(values) or "in another process"}): look for labels that do not fit their '
        'images, which python tools/test.py --show-dir draws, and try a lower learning rate (it '
        f'is {rate:g}) or optim_wrapper.clip_grad'
    )
