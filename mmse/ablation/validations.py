"""What a trial's validations say: metrics, dose, and what the metric owes to the attention."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import (
    CheckpointHook,
    EarlyStoppingHook,
    Hook,
    LoggerHook,
    ParamSchedulerHook,
)
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmse.gates.dose import (
    Sums,
    at_start,
    dose,
    held,
    mean_gains,
    of_network,
    start_weights,
    summed,
)
from mmse.gates.watch import attentions, backbones, learned_scalars
from mmse.hooks.finite_loss import DivergedError
from mmse.models import ChannelAttention
from mmse.utils.files import read_json, replacing, write_json


@dataclass(frozen=True)
class Validation:
    """One validation.

    Args:
        metrics: Its finite metrics.
        dose: See ``mmse.gates.dose.dose``; None if the attention at the start is not known.
        scalars: By block, see ``mmse.gates.watch.learned_scalars``.
    """

    metrics: Mapping[str, float]
    dose: Mapping[str, Mapping[str, float]] | None
    scalars: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Validations(Hook):
    """Keeps every validation in a file, because a resumed trial repeats none.

    Args:
        metric: The metric of the trial's task.
        folder: The trial's working folder, which gets ``validations.json`` and
            ``start_attention.pth``.
    """

    def __init__(self, metric: str, folder: Path) -> None:
        self.metric = metric
        self.file = folder / 'validations.json'
        self.start_file = folder / 'start_attention.pth'
        self.is_fresh = False  # no validation was seen in this process
        self._sums: dict[str, Sums] | None = None
        self._scalars: dict[str, dict[str, float]] = {}
        self._watching = ExitStack()

    def read(self) -> dict[int, Validation]:
        """Each validation by iteration."""
        kept = read_json(self.file) if self.file.is_file() else {}
        return {
            # A trial that was interrupted before doses were recorded has kept its metrics alone.
            int(step): Validation(**of) if 'metrics' in of else Validation(of, None)
            for step, of in kept.items()
        }

    def before_train(self, runner: Runner) -> None:
        """Keep the attention with which the training starts, or make up for a validation.

        A process can be killed between a checkpoint and the validation after the same iteration.
        """
        if runner.iter > 0 and _was_due(runner.train_loop) and runner.iter not in self.read():
            runner.val_loop.run()
        if self.start_file.is_file() or runner.iter > 0 or _is_compiled(runner):
            return
        with replacing(self.start_file) as part:
            torch.save(start_weights(_model(runner)), part)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to sum up what the attention does."""
        self._watching.close()
        self.is_fresh = True
        # Now: averaged weights are put away again before the validation's end is told.
        self._scalars = {name: learned_scalars(of) for name, of in attentions(_model(runner))}
        if (started := self._started(runner)) is not None:
            self._sums = self._watching.enter_context(summed(_model(runner), started))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add one validation; JSON has no NaN, and a class without a pixel has no IoU."""
        self._watching.close()
        there = None if self._sums is None else dose(self._sums)
        if there and not math.isfinite(of_network(there, 'moved')):
            raise DivergedError(f'the gains are not finite at iteration {runner.iter}')
        validation = Validation(self._kept(metrics or {}), there, self._scalars)
        kept = {**self.read(), runner.iter: validation}
        write_json(self.file, {step: asdict(of) for step, of in kept.items()})

    def knock_out(self, runner: Runner) -> dict[str, dict[str, float]]:
        """Validate with the attention of the start, and with the mean gains of the last validation.

        Returns:
            The metrics by what the gains were, ``'start'`` and ``'mean'``; nothing without
            attention.
        """
        started, sums = self._started(runner), self._sums
        if started is None or not sums:
            return {}
        found = {}
        for name, gains in (('start', started), ('mean', mean_gains(sums))):
            with _only_evaluating(runner), held(_model(runner), gains):
                found[name] = self._kept(runner.val_loop.run())
        return found

    def _kept(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics that say something.

        COCOeval gives -1 where there is no object of a size. mmdet gives no mAP at all for a
        detector that finds nothing on any image: that is 0.
        """
        wanted = re.fullmatch(r'(coco/(?:bbox|segm)_mAP)(_50|_75)?', self.metric)
        if wanted and not any(re.match('coco/(bbox|segm)_', key) for key in metrics):
            metrics = {f'{wanted[1]}{of}': 0.0 for of in ('', '_50', '_75')} | dict(metrics)
        return {
            key: float(value)
            for key, value in metrics.items()
            if math.isfinite(value) and not (value == -1 and key.startswith('coco/'))
        }

    def _started(self, runner: Runner) -> dict[str, ChannelAttention] | None:
        """The attention of each block as it was at the start, if it can be watched."""
        if not self.start_file.is_file() or _is_compiled(runner):
            return None
        return at_start(
            _model(runner), torch.load(self.start_file, map_location='cpu', weights_only=True)
        )


def _was_due(loop: BaseLoop) -> bool:
    """Whether the loop validates where it stands."""
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return False
    done: int = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter
    return bool(done >= loop.val_begin and done % loop.val_interval == 0)


def _model(runner: Runner) -> Any:
    return getattr(runner.model, 'module', runner.model)


def _is_compiled(runner: Runner) -> bool:
    return any(backbone._compiled_call_impl is not None for backbone in backbones(runner.model))


@contextmanager
def _only_evaluating(runner: Runner) -> Iterator[None]:
    """Without the hooks that take a validation for one of the training.

    The others stay: averaged weights, for one, are put in place by a hook.
    """
    hooks = runner._hooks
    steering = CheckpointHook, EarlyStoppingHook, LoggerHook, ParamSchedulerHook
    runner._hooks = [h for h in hooks if not isinstance(h, (*steering, Validations))]
    try:
        yield
    finally:
        runner._hooks = hooks
