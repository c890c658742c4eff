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

IN_A_ROW = 100
STATISTICS = ('running_mean', 'running_var')


class DivergedError(UserError):
    """The loss or the weights of a training are no longer finite."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the training when its loss becomes NaN or infinite.

    On a GPU the losses are looked at every ``interval`` iterations, because each look waits for the
    device, and before a checkpoint is saved; on a CPU at every iteration. In mixed precision a step
    whose gradients overflow is skipped: there the training stops when its weights or its running
    statistics are broken, or after a hundred such losses in a row.

    Args:
        interval: Iterations between two looks on a GPU.
    """

    def __init__(self, interval: int = 20) -> None:
        self.interval = interval
        self._losses: list[tuple[int, Mapping[str, Tensor]]] = []
        self._in_a_row = 0  # losses that were not finite, up to now

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
            found = self._look(runner)
            all_reduce(found, op='max')  # or one process would wait for another that has ended
            self._tell(found, runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save no weights that are broken; MMEngine asks in the main process only."""
        if self._losses:
            self._tell(self._look(runner), runner)

    def _look(self, runner: Any) -> Tensor:
        """0 where all losses are finite, 1 where steps were skipped, 2 where the end has come."""
        finite = torch.stack([torch.isfinite(log['loss'].detach()) for _, log in self._losses])
        if finite.all():
            self._in_a_row = 0
            return torch.zeros((), dtype=torch.int, device=finite.device)
        last = int(finite.nonzero()[-1]) if finite.any() else -1
        self._in_a_row = (self._in_a_row if last < 0 else 0) + len(finite) - 1 - last
        skipped = hasattr(runner.optim_wrapper, 'loss_scaler') and self._in_a_row < IN_A_ROW
        over = not (skipped and _is_finite(runner.model))
        return torch.tensor(1 + over, dtype=torch.int, device=finite.device)

    def _tell(self, found: Tensor, runner: Any) -> None:
        if found == 1:
            print_log('a loss was not finite; its step was skipped', 'current', level=30)
        elif found == 2:
            raise DivergedError(_sentence(runner, self._losses))
        self._losses = []


def _is_finite(model: torch.nn.Module) -> bool:
    """Whether weights and running statistics are; a skipped step has broken these already."""
    # Other buffers, such as masks, may be infinite for good.
    statistics = (b for name, b in model.named_buffers() if name.endswith(STATISTICS))
    tensors = (*model.parameters(), *statistics)
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


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
