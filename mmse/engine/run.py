"""Training and testing: from a command line to a Runner and a summary of what came out."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.build import build_runner
from mmse.engine.config import load_config
from mmse.engine.pictures import draw_predictions
from mmse.engine.preflight import preflight
from mmse.utils.errors import UserError


def prepare(args: argparse.Namespace, split: str) -> Config:
    """The full config of a run from its command line.

    Args:
        args: The parsed command line.
        split: What the run is about, train or test.

    Raises:
        UserError: The config cannot be used for this, or not with this launcher.
    """
    cfg = load_config(args.config, args.cfg_options, args.attention)
    if args.verbose:
        cfg.log_level = 'DEBUG'
    for key in ('model', f'{split}_dataloader'):
        if cfg.get(key) is None:
            raise UserError(f'{args.config} has no {key}: give the config of a whole run')
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch is for torchrun: torchrun --nproc_per_node=2 tools/train.py CONFIG '
            '--launcher pytorch'
        )
    if args.launcher not in ('none', 'pytorch') and not torch.cuda.is_available():
        raise UserError(f'--launcher {args.launcher} needs GPUs; on CPUs use torchrun and pytorch')
    cfg.launcher = args.launcher
    stem = Path(args.config.split('::')[-1]).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / stem)
    return cfg


def train(args: argparse.Namespace) -> None:
    """Train, then say what came out and where it is."""
    cfg = prepare(args, 'train')
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and torch sees none on this machine')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.load_from = latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        cfg.resume = cfg.load_from is not None
        if not cfg.resume:
            print_log(f'{cfg.work_dir} has no checkpoint to resume: starting anew', 'current')
    model = preflight(cfg, ('train', 'val'), whole_checkpoint=bool(cfg.get('resume')))
    runner = build_runner(cfg, model)
    runner.train()
    if is_main_process():
        _summarise(runner)
    barrier()  # the others wait for the process that summarises


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint; with ``--show-dir`` draw its predictions."""
    cfg = prepare(args, 'test')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show_dir:
        hooks = [
            *(cfg.get('custom_hooks') or []),
            {'type': 'mmse.DrawHook', 'out_dir': args.show_dir},
        ]
        cfg.custom_hooks = hooks
    model = preflight(cfg, ('test',), whole_checkpoint=True)
    metrics = build_runner(cfg, model).test()
    if is_main_process():
        lines = ['Testing is done.', _table(metrics)]
        if args.show_dir:
            lines.append(f'ground truth (left) and predictions (right): {args.show_dir}')
        print_log('\n'.join(lines), 'current')


def _summarise(runner: Runner) -> None:
    scalars = runner.message_hub.log_scalars
    metrics = {
        key.removeprefix('val/'): scalars[key].current()
        for key in scalars
        if key.startswith('val/') and not key.endswith('time')
    }
    lines = ['Training is done.', _table(metrics)]
    if checkpoint := latest_checkpoint(runner.work_dir):
        lines.append(f'checkpoint: {checkpoint}')
    print_log('\n'.join(filter(None, lines)), 'current')
    if runner.val_loop is not None:
        picture = Path(runner.work_dir) / 'predictions.png'
        draw_predictions(runner, picture)
        print_log(f'ground truth (left) and predictions (right): {picture}', 'current')


def _table(metrics: dict[str, float]) -> str:
    width = max(map(len, metrics), default=0)
    return '\n'.join(f'  {key:<{width}}  {value:.4f}' for key, value in metrics.items())
