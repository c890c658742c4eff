"""Does the identity start matter? A plain detector is trained, then fine-tuned with attention.

``run SEED...`` trains a plain Faster R-CNN R18 on the built-in data and fine-tunes it three times:
with ``sepp_v2`` in every block from the identity start, with ``sepp_v2`` from a random start, and
as it is (the control). The plain detector's branches do not start at zero
(``zero_init_residual=False``, as in torchvision's pretrained networks): after a training as short
as this, branches that start at zero would still be near zero, and scaling them would change little.
Results go to ``results/identity_start/``; a training whose result is there is not repeated.
``plot`` draws ``docs/images/identity_start.png`` and prints the table.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.build import build_runner
from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.pages.style import ACCENT, INK, PALE, styled, write_figure
from mmse.utils.files import read_json, write_json

CONFIG = 'configs/faster_rcnn_se_r50.py'
WORK = Path('work_dirs/identity_start')
RESULTS = Path('results/identity_start')
FIGURE = Path('docs/images/identity_start.png')
PLAIN_ITERATIONS, ITERATIONS, INTERVAL, LR = 480, 80, 10, 3e-4
ARMS: dict[str, dict[str, Any]] = {
    'identity start': {'attention': 'sepp_v2'},
    'random start': {'attention': 'sepp_v2', 'preserve_pretrained': False},
    'no attention': {'attention': None},
}
COLOURS = {'identity start': INK, 'random start': ACCENT, 'no attention': PALE}


class ValidateFirst(Hook):
    """Validate before the first iteration as well."""

    def before_train(self, runner: Runner) -> None:
        runner.val_loop.run()


def config(seed: int, name: str, backbone: dict[str, Any]) -> Config:
    backbone = {'depth': 18, 'zero_init_residual': False, **backbone}
    options = {f'model.backbone.{key}': value for key, value in backbone.items()}
    options['model.neck.in_channels'] = [64, 128, 256, 512]
    cfg = load_config(CONFIG, {'randomness.seed': seed, **options})
    cfg.work_dir = str(WORK / f'seed{seed}' / name.replace(' ', '_'))
    cfg.experiment_name = f'seed{seed}_{name.replace(" ", "_")}'
    cfg.launcher = 'none'
    return cfg


def train_plain(seed: int) -> str:
    """The checkpoint of the plain detector, which is trained if it is missing."""
    cfg = config(seed, 'plain', {'attention': None})
    cfg.train_cfg.update(max_iters=PLAIN_ITERATIONS, val_interval=PLAIN_ITERATIONS)
    cfg.default_hooks.checkpoint.interval = PLAIN_ITERATIONS
    checkpoint = latest_checkpoint(cfg.work_dir)
    if checkpoint is None or Path(checkpoint).name != f'iter_{PLAIN_ITERATIONS}.pth':
        cfg.load_from, cfg.resume = checkpoint, checkpoint is not None
        model = preflight(cfg, ('train', 'val'), whole_checkpoint=cfg.resume)
        build_runner(cfg, model).train()
        checkpoint = latest_checkpoint(cfg.work_dir)
    assert checkpoint is not None
    return checkpoint


def fine_tune(seed: int, arm: str, checkpoint: str) -> dict[str, list[float]]:
    """Loss of every iteration, and mAP before training and after every INTERVAL iterations."""
    cfg = config(seed, arm, ARMS[arm])
    cfg.load_from = checkpoint
    cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=INTERVAL)
    cfg.optim_wrapper.optimizer.lr = LR
    cfg.optim_wrapper.paramwise_cfg.custom_keys.attention.lr_mult = 1.0  # one rate for all arms
    cfg.default_hooks.checkpoint.interval = ITERATIONS
    model = preflight(cfg, ('train', 'val'), whole_checkpoint=False)
    runner = build_runner(cfg, model)
    runner.register_hook(ValidateFirst())
    runner.train()
    scalars = runner.message_hub.log_scalars
    losses, maps = (scalars[key].data[0] for key in ('train/loss', 'val/coco/bbox_mAP'))
    return {'loss': losses.tolist(), 'bbox_mAP': maps.tolist()}


def run(seed: int) -> None:
    file = RESULTS / f'seed{seed}.json'
    results = read_json(file) if file.is_file() else {}
    for arm in ARMS:
        if arm in results:
            continue
        results[arm] = fine_tune(seed, arm, train_plain(seed))
        write_json(file, results)


def plot() -> None:
    seeds = [read_json(file) for file in sorted(RESULTS.glob('seed*.json'))]
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        write_figure(draw(seeds), FIGURE)
    print(FIGURE)
    for arm in ARMS:
        maps = np.array([seed[arm]['bbox_mAP'] for seed in seeds])
        before, first, end = (statistics.mean(maps[:, i]) for i in (0, 1, -1))
        print(f'{arm:15} mAP before {before:.3f}, after {INTERVAL} {first:.3f}, end {end:.3f}')


def draw(seeds: list[dict[str, Any]]) -> Figure:
    """Loss and mAP of each arm: one thin line per seed, and their mean."""
    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    window = np.ones(INTERVAL) / INTERVAL
    for arm, colour in COLOURS.items():
        losses = np.array([np.convolve(seed[arm]['loss'], window, 'valid') for seed in seeds])
        maps = np.array([seed[arm]['bbox_mAP'] for seed in seeds])
        for axes, x, lines in (
            (left, np.arange(INTERVAL, ITERATIONS + 1), losses),
            (right, np.arange(0, ITERATIONS + 1, INTERVAL), maps),
        ):
            axes.plot(x, lines.T, color=colour, alpha=0.45, linewidth=0.8)
            axes.plot(x, lines.mean(0), color=colour, linewidth=2, label=arm)
            axes.grid()
    left.set(ylabel=f'training loss, mean of {INTERVAL} iterations', xlabel='iteration')
    right.set(ylabel='bbox mAP on val', xlabel='iteration', ylim=(0, None))
    right.legend(loc='lower right')
    figure.suptitle(
        f'sepp_v2 put into a trained Faster R-CNN R18; {len(seeds)} seeds and their mean'
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('run').add_argument('seeds', nargs='+', type=int)
    commands.add_parser('plot')
    args = parser.parse_args()
    if args.command == 'plot':
        plot()
    else:
        for seed in args.seeds:
            run(seed)


if __name__ == '__main__':
    main()
