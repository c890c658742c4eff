"""A resumed run draws the same random numbers as an undisturbed one."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, set_random_seed

from mmse.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed Python's, NumPy's and torch's generators for every training iteration.

    The seed is made of the run's seed, the iteration and the rank, so what the model draws
    (sampled proposals, dropout) depends on nothing that came before: not on validation in between,
    not on an interruption. The same holds for the batches of an iteration-based loop, which
    MMEngine fetches again up to the iteration that it resumes from: workers have generators of
    their own, and for augmentation in this process every fetch is seeded.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Seed every fetch of the loop, those that are repeated included."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _SeededBatches(loop.dataloader_iterator, runner.seed)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed for iteration ``runner.iter``."""
        _seed(runner.seed, runner.iter)


class _SeededBatches:
    """The batches of a loop, each fetched after seeding for its index."""

    def __init__(self, batches: Iterator[Any], seed: int) -> None:
        self._batches = batches
        self._seed = seed
        self._index = 0

    def __next__(self) -> Any:
        _seed(self._seed, self._index)
        self._index += 1
        return next(self._batches)

    def skip_iter(self, number: int) -> None:
        """Fetch again what a resumed run has used (OneDL's loop asks; MMEngine's fetches itself).

        OneDL's own way, moving the sampler on, would start the workers with other seeds.
        """
        for _ in range(number):
            next(self)


def _seed(seed: int, iteration: int) -> None:
    # 2**31 wraps long runs with large seeds into what every generator accepts.
    set_random_seed((seed + 1_000_003 * iteration + 7_919 * get_rank()) % 2**31)
