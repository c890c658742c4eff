"""Training and testing: from a command line to a Runner and a summary of what came out."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmse.engine.checkpoints import latest_checkpoint
from mmse.engine.config import load_config
from mmse.engine.pictures import draw_predictions
from mmse.engine.preflight import preflight
from mmse.engine.torchvision_weights import read_torchvision_names
from mmse.errors import UserError
from mmse.weights import allow_mmengine_globals


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that train.py and test.py share; they are mmdet's."""
    parser.add_argument('config', help='a config file, or package::path of an installed one')
    parser.add_argument(
        '--attention',
        metavar='PRESET|KEY=VALUE,...',
        help='put this attention into the ResNets of the config, such as sepp_v2 or '
        'squeeze=avg+max,residual=True',
    )
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
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='name every tensor that a checkpoint gave or left out',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def exit_with_one_sentence(
    main: Callable[[], None],
    stopped: str = 'stopped; --resume goes on from the last checkpoint',
) -> None:
    """Run a command line; a user's mistake ends it with one sentence and exit code 2.

    Args:
        main: The command line.
        stopped: What to say when it is interrupted.
    """
    warnings.showwarning = _show_warning
    try:
        main()
    except UserError as error:
        # One process of each machine speaks.
        if int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))) == 0:
            print('error:', ' '.join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(130)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    """Print what this package warns of; what the libraries warn of is not the user's to mend."""
    if Path(filename).is_relative_to(Path(__file__).parent.parent):
        print(f'warning: {message}', file=sys.stderr)


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


def build_runner(cfg: Config) -> Runner:
    """A Runner whose checkpoints load safely and that runs on several CPU processes as well."""
    allow_mmengine_globals()
    read_torchvision_names()
    os.environ.setdefault('LOCAL_RANK', '0')
    # Under a fixed name MMEngine gives a second run of the process the visualizer, and with it the
    # log folder, of the first; without one it takes the name of the run.
    (cfg.get('visualizer') or {}).pop('name', None)
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        # MMEngine's own start-up selects a CUDA device, and its default wrapper names one; both
        # step aside for a process group that exists and a wrapper that the config names.
        dist.init_process_group('gloo')
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
            'device_ids': None,
        }
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


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
    preflight(cfg, ('train', 'val'), whole_checkpoint=bool(cfg.get('resume')))
    runner = build_runner(cfg)
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
    preflight(cfg, ('test',), whole_checkpoint=True)
    metrics = build_runner(cfg).test()
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
