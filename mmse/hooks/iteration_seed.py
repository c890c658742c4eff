"""A resumed run draws the same random numbers as an undisturbed one."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed

from mmse.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed Python's, NumPy's and torch's generators before every training iteration.

    The seed is made of the run's seed, the iteration and the rank, so what the model draws
    (sampled proposals, dropout) depends on nothing that came before: not on validation in between,
    not on an interruption. Data loading in worker processes has generators of its own, which
    MMEngine's iteration-based loop replays when it resumes. With ``num_workers=0`` the augmentation
    of the first batch after resuming is drawn before this hook runs and may differ.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed for iteration ``runner.iter``."""
        # 2**31 wraps long runs with large seeds into what every generator accepts.
        set_random_seed((runner.seed + 1_000_003 * runner.iter + 7_919 * get_rank()) % 2**31)
