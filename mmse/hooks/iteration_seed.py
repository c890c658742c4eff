"""Random numbers that an interruption does not change."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, set_random_seed

from mmse.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed Python's, NumPy's and torch's generators before every training iteration.

    The seed is made of the run's seed, the iteration and the rank. What the model draws (sampled
    proposals, dropout) therefore does not depend on validations or interruptions before it, and a
    resumed run draws what an uninterrupted one does. The same holds for the augmentation of an
    iteration-based loop. MMEngine resumes such a loop by fetching all earlier batches again;
    worker processes have generators of their own, and without workers every fetch is seeded.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Seed every fetch of the loop, also those that a resumed run repeats."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _SeededBatches(loop.dataloader_iterator, runner.seed)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed for iteration ``runner.iter``."""
        _seed(runner.seed, runner.iter)


class _SeededBatches:
    """The batches of a loop; each is fetched after seeding for its index."""

    def __init__(self, batches: Iterator[Any], seed: int) -> None:
        self._batches = batches
        self._seed = seed
        self._index = 0

    def __next__(self) -> Any:
        _seed(self._seed, self._index)
        self._index += 1
        return next(self._batches)

    def skip_iter(self, number: int) -> None:
        """Fetch and drop the batches that a resumed run has already used.

        Only OneDL's loop calls this; MMEngine's fetches them itself. OneDL's own iterator advances
        the sampler instead, which would give the workers other seeds.
        """
        for _ in range(number):
            next(self)


def _seed(seed: int, iteration: int) -> None:
    # Modulo 2**31, because NumPy's generator takes no larger seeds.
    set_random_seed((seed + 1_000_003 * iteration + 7_919 * get_rank()) % 2**31)
