"""A checkpoint of another version of torch, or from another device, resumes."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmse.registry import HOOKS

# How torch computes the step of an optimizer, but not what the step is.
_FORM = ('foreach', 'fused')


@HOOKS.register_module()
class OptimizerFormHook(Hook):
    """Resume with the optimizer's form that the config sets, instead of the checkpoint's.

    torch writes ``fused`` and ``foreach`` into the state of an optimizer and takes them from there
    again, also where the version or the device has no such form: the first step would fail.
    """

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the form of the run's optimizer into the state that is loaded next."""
        wrapper, state = runner.optim_wrapper, checkpoint.get('optimizer')
        if not isinstance(wrapper, OptimWrapper) or not state:
            return
        for group, saved in zip(wrapper.param_groups, state['param_groups'], strict=False):
            saved.update({key: group[key] for key in _FORM if key in group})
