"""How long the trials of a study will take, from a few measured steps."""

import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmse.checkpoints.safe_load import checked
from mmse.datasets.digest import is_built_in, leaf_datasets
from mmse.datasets.shapes import DEFAULT_ROOT
from mmse.engine.preflight import preflight
from mmse.utils.errors import UserError

STEPS = 4
VAL_STEPS = 2
LOADERS = ('train_dataloader', 'val_dataloader')


def trial_seconds(cfg: Config) -> float:
    """Seconds that one training with a config takes on the device of this process, start-up apart.

    A few training and validation steps are measured, the first of each left out. Nothing is left
    behind: built-in data that are not there yet are generated into a temporary folder.

    Args:
        cfg: A full training config.

    Raises:
        UserError: The data or the config cannot be used here.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        # The libraries tell of every weight and of every index that they make.
        with contextlib.redirect_stdout(io.StringIO()):
            return _measured(copy.deepcopy(cfg))
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(f'the GPU has no room for it now: {error}') from error
    finally:
        logger.setLevel(level)
        checked.clear()


def _measured(cfg: Config) -> float:
    model: Any = preflight(cfg, ('train', 'val'), whole_checkpoint=False).module.to(get_device())
    try:
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    except AssertionError as error:  # mixed precision where there is no GPU
        raise UserError(f'optim_wrapper: {error}') from error
    for name in LOADERS:
        cfg[name].num_workers = 0
        cfg[name].persistent_workers = False
    with TemporaryDirectory() as folder:
        _move_missing_data(cfg, Path(folder))
        train, val = (Runner.build_dataloader(cfg[name], seed=0) for name in LOADERS)
        model.train()
        step = _median_time(train, STEPS, lambda batch: model.train_step(batch, wrapper))
        model.eval()
        val_step = _median_time(val, VAL_STEPS, model.val_step)
    loop = cfg.train_cfg
    iterations: int = loop.get('max_iters') or loop.max_epochs * len(train)
    interval: int = loop.get('val_interval', 1) * (1 if 'max_iters' in loop else len(train))
    # Two knock-outs at the end, and the backbone's pass at the start, which is no more than one.
    passes = max(1, iterations // interval) + 3
    return iterations * step + passes * len(val) * val_step


def _move_missing_data(cfg: Config, folder: Path) -> None:
    """Let built-in data that are not there yet be generated in another folder."""
    for name in LOADERS:
        for dataset in leaf_datasets(cfg[name].dataset):
            root = Path(dataset.get('data_root', DEFAULT_ROOT))
            if is_built_in(dataset) and not (root.is_dir() and any(root.iterdir())):
                dataset['data_root'] = str(folder / '_'.join(root.parts[-2:]))


def _median_time(loader: Iterable[Any], steps: int, work: Callable[[Any], Any]) -> float:
    """Median seconds of fetching a batch and working on it, after one to warm up."""
    times = []
    began = time.perf_counter()
    for batch in islice(loader, steps):
        work(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # it would only have been told what to do
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    return statistics.median(times[1:] or times)
