"""Training and testing: from a command line to a Runner and a summary of what came out."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.build import build_runner
from mmse.engine.config import leaves, load_config
from mmse.engine.preflight import preflight
from mmse.engine.summary import ProgressHook, summarise_test, summarise_training
from mmse.utils.errors import UserError


def prepare(args: argparse.Namespace, split: str) -> Config:
    """The full config of a run from its command line.

    Args:
        args: The parsed command line.
        split: What the run is about, train or test.

    Raises:
        UserError: The config cannot be used for this, or not with this launcher, or the working
            folder cannot be made.
    """
    rate = getattr(args, 'attention_lr_mult', None)  # of a training only
    cfg = load_config(args.config, args.cfg_options, args.attention, rate)
    if args.verbose:
        cfg.log_level = 'DEBUG'
    for key in ('model', f'{split}_dataloader'):
        if cfg.get(key) is None:
            own = ' (own_data without val and test has none)' if key == 'test_dataloader' else ''
            raise UserError(f'{args.config} has no {key}{own}: give the config of a whole run')
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
    check_writable(cfg.work_dir, '--work-dir')
    _complete(cfg)
    return cfg


def _complete(cfg: Config) -> None:
    """Write into the config of a run what mmdet's and mmseg's own programs read in it."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'mmse' not in imports:
        # The inferencers read a checkpoint before they build the model, which would import mmse.
        cfg.custom_imports = {'imports': [*imports, 'mmse'], 'allow_failed_imports': False}
    if cfg.get('test_dataloader') is not None:
        # What mmseg's inference_model prepares images with.
        cfg.test_pipeline = leaves(cfg.test_dataloader['dataset'])[0]['pipeline']


def check_writable(folder: str | Path, where: str) -> None:
    """Refuse a folder that cannot be made or written; nothing is made.

    Args:
        folder: The folder.
        where: The argument that names it, for the error.

    Raises:
        UserError: Its name is too long, a part of it is a file, or it may not be written.
    """
    path = Path(os.path.abspath(folder))
    if long := [part for part in path.parts if len(os.fsencode(part)) > 255]:
        raise UserError(
            f'{where} {folder}: a name may have 255 bytes, {long[0][:40]}... has '
            f'{len(os.fsencode(long[0]))}; give a shorter one'
        )
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f'{where} {folder}: {there} is a file, not a folder')
    if not os.access(there, os.W_OK):
        raise UserError(f'{where} {folder}: {there} may not be written')


def train(args: argparse.Namespace) -> None:
    """Train, then say what came out and where it is.

    Raises:
        UserError: The config, the data or the checkpoint cannot be used, or the loss became NaN.
        KeyboardInterrupt: Its message says whether the run can be resumed.
    """
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
    choose_start(cfg, args.resume)
    model = preflight(cfg, ('train', 'val'), whole_checkpoint=bool(cfg.get('resume')))
    runner = build_runner(cfg, model)
    progress = ProgressHook()
    runner.register_hook(progress)
    try:
        runner.train()
    except KeyboardInterrupt as error:
        saved = latest_checkpoint(cfg.work_dir)
        raise KeyboardInterrupt(
            f'stopped; --resume goes on from {saved}'
            if saved
            else 'stopped before the first checkpoint'
        ) from error
    if is_main_process():
        summarise_training(runner, progress)
    barrier()  # the others wait for the process that summarises


def choose_start(cfg: Config, resume: str | None) -> None:
    """Decide what a training starts from: the checkpoint to resume, else what the config says.

    Args:
        cfg: The full config; ``load_from`` and ``resume`` are changed in place.
        resume: ``--resume``: a checkpoint, ``auto`` for the latest one, or None.
    """
    if resume is None and cfg.get('resume') and cfg.get('load_from') is None:
        resume, cfg.resume = 'auto', False  # as MMEngine understands it
    if resume is None:
        return
    checkpoint = latest_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if checkpoint is not None:
        cfg.load_from, cfg.resume = checkpoint, True
        return
    start = f'from {cfg.load_from}, as the config says' if cfg.get('load_from') else 'anew'
    print_log(f'{cfg.work_dir} has no checkpoint to resume: starting {start}', 'current')


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint; with ``--show-dir`` draw its predictions.

    Raises:
        UserError: The config, the data or the checkpoint cannot be used.
    """
    cfg = prepare(args, 'test')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show_dir:
        check_writable(args.show_dir, '--show-dir')
        hooks = [
            *(cfg.get('custom_hooks') or []),
            {'type': 'mmse.DrawHook', 'out_dir': args.show_dir},
        ]
        cfg.custom_hooks = hooks
    model = preflight(cfg, ('test',), whole_checkpoint=True)
    metrics = build_runner(cfg, model).test()
    if is_main_process():
        summarise_test(cfg, metrics, args.show_dir)
