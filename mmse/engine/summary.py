"""What a run says at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.config.kinds import metrics_of, scope_of
from mmse.engine.pictures import draw_predictions

NOTHING_FOUND = (
    'There is no metric: the model found nothing in the images. Train it longer, or look at '
    'model.test_cfg, whose thresholds may be too high.'
)


class ProgressHook(Hook):
    """Remember where a training began and what its last validation gave.

    Attributes:
        started: Iteration that the run began at; above 0 where it was resumed.
        metrics: The metrics of the last validation; None if there was none.
    """

    started = 0
    metrics: dict[str, float] | None = None

    def before_train(self, runner: Runner) -> None:
        """Remember the iteration."""
        self.started = runner.iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Remember the metrics."""
        self.metrics = dict(metrics or {})


def summarise_training(runner: Runner, progress: ProgressHook) -> None:
    """Log what came out of a training and where it is, and draw predictions."""
    checkpoint = latest_checkpoint(runner.work_dir)
    if runner.iter == progress.started:
        loop: Any = runner.train_loop
        key = 'max_epochs' if hasattr(loop, '_max_epochs') and runner.epoch else 'max_iters'
        length = loop.max_epochs if key == 'max_epochs' else loop.max_iters
        lines = [
            f'Nothing was trained: {runner.cfg.get("load_from")} has all of train_cfg.{key}='
            f'{length} behind it. Raise it to go on.'
        ]
    elif progress.metrics is None:
        lines = ['Training is done. There was no validation.']
    else:
        lines = ['Training is done.', _table(progress.metrics) or NOTHING_FOUND]
    if checkpoint:
        lines.append(f'checkpoint: {checkpoint}')
    print_log('\n'.join(lines), 'current')
    if runner.val_loop is None or runner.iter == progress.started:
        return
    if scope_of(runner.cfg) == 'mmpretrain':
        return  # its visualizer draws no ground truth beside predictions
    picture = Path(runner.work_dir) / 'predictions.png'
    try:
        draw_predictions(runner, picture)
    except Exception as error:  # the training is done, whatever images and names can be drawn
        print_log(f'predictions cannot be drawn: {error}', 'current', level=30)
    else:
        print_log(f'ground truth (left) and predictions (right): {picture}', 'current')


def summarise_test(cfg: Config, metrics: Mapping[str, float], show_dir: str | None) -> None:
    """Log what came out of a test and where it is."""
    written = [
        str(metric[key])
        for metric in metrics_of(cfg.test_evaluator)
        if metric.get('format_only')
        for key in ('outfile_prefix', 'output_dir')
        if metric.get(key)
    ]
    lines = ['Testing is done.']
    if written:
        lines.append(f'predictions, not measured: {_files(written)}')
    else:
        lines.append(_table(metrics) or NOTHING_FOUND)
    if show_dir:
        lines.append(f'ground truth (left) and predictions (right): {show_dir}')
    print_log('\n'.join(lines), 'current')


def _files(prefixes: Sequence[str]) -> str:
    """The files that begin with a prefix, or the folder of that name."""
    found = [
        str(file)
        for prefix in prefixes
        for file in ([prefix] if Path(prefix).is_dir() else _beginning(Path(prefix)))
    ]
    return ', '.join(found) or 'none'


def _beginning(prefix: Path) -> list[Path]:
    return sorted(f for f in prefix.parent.iterdir() if f.name.startswith(f'{prefix.name}.'))


def _table(metrics: Mapping[str, float]) -> str:
    width = max(map(len, metrics), default=0)
    return '\n'.join(f'  {key:<{width}}  {value:.4f}' for key, value in metrics.items())
