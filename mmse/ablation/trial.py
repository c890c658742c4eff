"""One trial in a process of its own: ``python -m mmse.ablation.trial FOLDER``."""

import math
import os
import re
import resource
import statistics
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmse.ablation.failure import DIVERGED, LOG, failure, keep_environment
from mmse.ablation.initial_weights import (
    RECORD,
    Pretrained,
    keep_drawn_attention,
    read_pretrained,
    save_initial_weights,
)
from mmse.ablation.outcomes import averaged, spikes, width_of
from mmse.ablation.provenance import environment, source_commit
from mmse.ablation.records import FailedTrial, FinishedTrial, TrialHead, read_trial
from mmse.ablation.validations import Validations
from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.build import build_runner
from mmse.engine.preflight import preflight
from mmse.gates.dose import of_network
from mmse.gates.watch import stage_of
from mmse.hooks.finite_loss import DivergedError
from mmse.utils.errors import UserError

BUSY = 75  # exit code: another process runs the trial, or its pretraining


class NotYetError(Exception):
    """A trial's pretraining has not ended."""


@dataclass(frozen=True)
class Assignment:
    """What the scheduler tells a trial's process, as ``ablation`` in the trial's config.

    Args:
        head: Which trial it is.
        record: Where the trial's file goes.
        metric: The metric that counts.
        start: How the attention starts, ``'identity'`` or ``'default'``.
        keep_checkpoints: Keep the checkpoints when the trial has finished.
        pretraining: Working folder of the training that gives the backbone's weights, if there is
            one.
    """

    head: TrialHead
    record: str
    metric: str
    start: str
    keep_checkpoints: bool
    pretraining: str | None = None

    @classmethod
    def from_config(cls, cfg: Config) -> 'Assignment':
        """Take it out of a trial's config."""
        raw = cfg.pop('ablation').to_dict()
        return cls(**raw | {'head': TrialHead(**raw['head'])})


def read_assignment(folder: Path) -> Assignment:
    """What the trial of a working folder is."""
    return Assignment.from_config(Config.fromfile(folder / 'config.py'))


def run_trial(folder: Path) -> None:
    """Train one trial from its initial weights or its latest checkpoint, and write its file.

    Args:
        folder: Its working folder, with ``config.py``, whose ``ablation`` is an ``Assignment``.

    Raises:
        UserError: The config, the data or the pretraining cannot be used, or the metric is not
            among the results.
        NotYetError: The training that gives its backbone's weights has not ended.
    """
    commit = source_commit()
    # Without its file's name, under which the Runner would write its own over it.
    cfg = Config(Config.fromfile(folder / 'config.py').to_dict())
    assignment = Assignment.from_config(cfg)
    record = Path(assignment.record)
    if read_trial(record) is not None:
        return  # another scheduler was quicker
    keep_environment(folder)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    pretrained = _pretrained(assignment)
    if (checkpoint := latest_checkpoint(folder)) is not None:
        cfg.load_from, cfg.resume = checkpoint, True
    else:
        initial = folder / 'initial_weights.pth'
        weights = pretrained.checkpoint if pretrained else None
        save_initial_weights(cfg, assignment.head.seed, initial, weights)
        cfg.load_from = str(initial)
    if assignment.start == 'default':
        keep_drawn_attention(cfg)
    model = preflight(cfg, ('train', 'val'), whole_checkpoint=checkpoint is not None)
    runner = build_runner(cfg, model)
    validations = Validations(assignment.metric, folder)
    runner.register_hook(validations)
    runner.train()
    if runner.iter not in validations.read() or not validations.is_fresh:
        runner.val_loop.run()  # the run before was killed between its last checkpoint and this
    FinishedTrial(
        **asdict(assignment.head),
        environment=environment(),
        commit=commit,
        **_results(runner, validations, assignment.metric),
        pretraining=pretrained.metrics if pretrained else {},
        log=_log(folder),
    ).write(record)
    if not assignment.keep_checkpoints:
        for file in [*folder.glob('*.pth'), folder / 'last_checkpoint']:
            file.unlink(missing_ok=True)


def known_end(folder: Path) -> int | None:
    """The exit code of a trial that needs no process to find it; None if it is to be run.

    Args:
        folder: Its working folder.
    """
    assignment = read_assignment(folder)
    ended = read_trial(Path(assignment.record))
    if isinstance(ended, FailedTrial):
        return DIVERGED if ended.diverged else 1
    if ended is not None:
        return 0
    try:
        with FileLock(folder / 'lock', timeout=0):
            _pretrained(assignment)
    except (Timeout, NotYetError):
        return BUSY
    except UserError:
        pass  # its process says so in the log
    return None


def _pretrained(assignment: Assignment) -> Pretrained | None:
    """The network that a trial starts from, if there is one.

    Raises:
        NotYetError: It is still being trained.
        UserError: It has failed, or its folder has been removed.
    """
    if assignment.pretraining is None:
        return None
    folder = Path(assignment.pretraining)
    if not (folder / 'config.py').is_file():
        raise UserError(f'the pretraining {folder} has been removed: run the study again')
    if isinstance(read_trial(folder / RECORD), FailedTrial):
        raise UserError(f'the pretraining {folder} has failed; its {LOG} says why')
    found = read_pretrained(folder)
    if found is None:
        raise NotYetError
    return found


def _results(runner: Runner, validations: Validations, metric: str) -> dict[str, Any]:
    scalars = runner.message_hub.log_scalars
    kept = validations.read()
    last = kept[runner.iter]
    metrics = last.metrics
    if metric not in metrics:
        raise UserError(
            f'the last validation gives no {metric}: it is not a number, or the evaluator does not '
            f'know it; it gives {", ".join(metrics) or "nothing"}'
        )
    losses = scalars['train/loss'].data[0].tolist()
    times = scalars['train/time'].data[0].tolist()
    return {
        'metrics': metrics,
        'curves': {
            key: [[step, of.metrics[key]] for step, of in sorted(kept.items()) if key in of.metrics]
            for key in metrics
        },
        'loss': averaged(losses, width_of(losses)),
        'spikes': spikes(losses),
        'non_finite': sum(not math.isfinite(loss) for loss in losses),
        'iterations': len(losses),
        'training_time_s': sum(times),
        'step_time_s': statistics.median(times),
        'peak_memory_bytes': _peak_memory(),
        'parameters': sum(p.numel() for p in _model(runner).parameters()),
        'scalars': _by_stage(last.scalars),
        'dose': last.dose,
        'earlier': [
            {'iteration': i, 'dose': of.dose, 'scalars': of.scalars}
            for i, of in sorted(kept.items())
        ][:-1],
        'next_validation': next_validation(runner.train_loop),
        'dose_curve': [
            [i, *(of_network(of.dose, key) for key in ('moved', 'over_images'))]
            for i, of in sorted(kept.items())
            if of.dose
        ],
        'knock_out': validations.knock_out(runner),
        'cpu_threads': torch.get_num_threads(),
    }


def _model(runner: Runner) -> torch.nn.Module:
    model: torch.nn.Module = getattr(runner.model, 'module', runner.model)
    return model


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def next_validation(loop: BaseLoop) -> int | None:
    """The iteration of the validation that would have come after the end.

    Args:
        loop: The loop of a training that has ended.

    Returns:
        None for a loop that is neither of MMEngine's.
    """
    if isinstance(loop, EpochBasedTrainLoop):
        epochs: int = (loop.epoch // loop.val_interval + 1) * loop.val_interval
        return epochs * len(loop.dataloader)
    if isinstance(loop, IterBasedTrainLoop):
        iterations: int = (loop.iter // loop.val_interval + 1) * loop.val_interval
        return iterations
    return None


def _by_stage(scalars: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, list[float]]]:
    """What alpha, T and the weight of the average became: by scalar and stage, one per block."""
    learned: dict[str, dict[str, list[float]]] = {}
    for block, values in scalars.items():
        for key, value in values.items():
            learned.setdefault(key, {}).setdefault(stage_of(block), []).append(value)
    return learned


def _log(folder: Path) -> list[str]:
    """The lines of the log about iterations, warnings, errors and resuming."""
    lines = (folder / LOG).read_text(encoding='utf-8', errors='replace').splitlines()
    return [line for line in lines if re.search(r'Iter\(|Epoch\(|WARNING|ERROR|resumed', line)]


def _end_with_parent() -> None:
    """End this process when the scheduler, which holds the other end of stdin, has ended."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # sys.stdin itself would hold a lock at exit
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    folder = Path(sys.argv[1])
    _end_with_parent()
    try:
        with FileLock(folder / 'lock', timeout=0):
            code = _exit_code(folder)
            assignment = read_assignment(folder)
            record = Path(assignment.record)
            if code and read_trial(record) is None:  # while no other scheduler can start it again
                sys.stderr.flush()
                failure(assignment.head, folder, code).write(record)
    except (Timeout, NotYetError):
        code = BUSY
    sys.exit(code)


def _exit_code(folder: Path) -> int:
    """Run a trial; 0 if it has ended well, and what its log says otherwise."""
    try:
        run_trial(folder)
    except NotYetError:
        raise
    except UserError as error:
        print('error:', error, file=sys.stderr)
        return DIVERGED if isinstance(error, DivergedError) else 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == '__main__':
    main()
