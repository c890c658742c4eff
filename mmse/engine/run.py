"""Training and testing: from a command line to a Runner and a summary of what came out."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from mmse.engine.config import load_config
from mmse.engine.pictures import draw_predictions
from mmse.engine.preflight import preflight
from mmse.errors import UserError
from mmse.weights import allow_mmengine_globals


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that train.py and test.py share; they are mmdet's."""
    parser.add_argument('config', help='a config file, or package::path of an installed one')
    parser.add_argument('--work-dir', help='where logs and results go; default: work_dirs/CONFIG')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the config, such as model.backbone.attention=se',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def exit_with_one_sentence(main: Callable[[], None]) -> None:
    """Run a command line; a user's mistake ends it with one sentence and exit code 2."""
    logging.captureWarnings(True)
    try:
        main()
    except UserError as error:
        if int(os.environ.get('RANK', 0)) == 0:
            print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('stopped; --resume goes on from the last checkpoint', file=sys.stderr)
        sys.exit(130)


def prepare(args: argparse.Namespace) -> Config:
    """The full config of a run from its command line."""
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    stem = Path(args.config.split('::')[-1]).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / stem)
    return cfg


def build_runner(cfg: Config) -> Runner:
    """A Runner whose checkpoints load safely and that runs on several CPU processes as well."""
    allow_mmengine_globals()
    os.environ.setdefault('LOCAL_RANK', '0')
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        if cfg.launcher != 'pytorch':
            raise UserError(
                f'--launcher {cfg.launcher} needs GPUs; on CPUs use torchrun and pytorch'
            )
        # MMEngine's own start-up selects a CUDA device, and its default wrapper names one; both
        # step aside for a process group that exists and a wrapper that the config names.
        dist.init_process_group('gloo')
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
        }
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def train(args: argparse.Namespace) -> None:
    """Train, then say what came out and where it is."""
    cfg = prepare(args)
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and torch sees none on this machine')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    preflight(cfg, ('train_dataloader', 'val_dataloader'))
    runner = build_runner(cfg)
    runner.train()
    if is_main_process():
        _summarise(runner)


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint; with ``--show-dir`` draw its predictions."""
    cfg = prepare(args)
    cfg.load_from = args.checkpoint
    if args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            raise UserError(f'--show-dir: {args.config} has no visualization hook')
        hook.draw = True
        hook.interval = 1
        cfg.visualizer.save_dir = args.show_dir
        if cfg.get('default_scope') == 'mmdet':
            hook.test_out_dir = args.show_dir
    preflight_cfg = cfg.copy()
    preflight_cfg.resume = True
    preflight(preflight_cfg, ('test_dataloader',))
    metrics = build_runner(cfg).test()
    if is_main_process():
        print_log('Result\n' + _table(metrics), 'current')


def _summarise(runner: Runner) -> None:
    scalars = runner.message_hub.log_scalars
    metrics = {
        key.removeprefix('val/'): scalars[key].current()
        for key in scalars
        if key.startswith('val/') and not key.endswith('time')
    }
    lines = ['Training is done.', _table(metrics)]
    if checkpoint := find_latest_checkpoint(runner.work_dir):
        lines.append(f'checkpoint: {checkpoint}')
    if runner.val_loop is not None:
        picture = Path(runner.work_dir) / 'predictions.png'
        draw_predictions(runner, picture)
        lines.append(f'ground truth (left) and predictions (right): {picture}')
    print_log('\n'.join(lines), 'current')


def _table(metrics: dict[str, float]) -> str:
    width = max(map(len, metrics), default=0)
    return '\n'.join(f'  {key:<{width}}  {value:.4f}' for key, value in metrics.items())
