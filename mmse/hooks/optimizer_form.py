"""A checkpoint of another version of torch, or from another device, resumes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmse.registry import HOOKS
from mmse.utils.errors import UserError

# How torch computes the step of an optimizer, but not what the step is.
_FORM = ('foreach', 'fused')


@HOOKS.register_module()
class OptimizerFormHook(Hook):
    """Resume with the optimizer's form that the config sets, instead of the checkpoint's.

    torch writes ``fused`` and ``foreach`` into the state of an optimizer and takes them from there
    again, also where the version or the device has no such form: the first step would fail.
    """

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the form of the run's optimizer into the state that is loaded next.

        Raises:
            UserError: The learning rates stand in another relation to each other than before, which
                resuming would undo.
        """
        wrapper, state = runner.optim_wrapper, checkpoint.get('optimizer')
        if not isinstance(wrapper, OptimWrapper) or not state:
            return
        groups = wrapper.optimizer.param_groups, state['param_groups']
        if len(groups[0]) == len(groups[1]):  # or torch says that they differ
            _check_rates(*(list(map(_rate, each)) for each in groups))
        for group, saved in zip(*groups, strict=False):
            saved.update({key: group[key] for key in _FORM if key in group})


def _rate(group: Mapping[str, Any]) -> float:
    rate: float = group.get('initial_lr', group['lr'])
    return rate


def _check_rates(asked: Sequence[float], saved: Sequence[float]) -> None:
    """Refuse factors of learning rates that the checkpoint's would replace."""
    factors = [new / old for new, old in zip(asked, saved, strict=True) if new and old]
    if factors and max(factors) > min(factors) * (1 + 1e-6):
        raise UserError(
            'resuming takes the learning rates of the checkpoint, in which they stand in another '
            'relation to each other (lr_mult, --attention-lr-mult): resume with the factors that '
            'it was trained with, or start anew from its weights with load_from'
        )
