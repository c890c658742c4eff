"""The model of a config, and the Runner that trains or tests it."""

import copy
import inspect
import os
import re
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, OPTIMIZERS, RUNNERS
from mmengine.runner import Runner, set_random_seed
from mmengine.runner.checkpoint import load_checkpoint
from torch import Tensor, nn

from mmse.checkpoints.belonging import check_checkpoint
from mmse.utils import threads
from mmse.utils.errors import UserError


class BuiltModel(NamedTuple):
    """A model, and where torch's random numbers stood when it had been built.

    Args:
        module: The model.
        random_state: State of torch's generator; None if the config has no seed.
    """

    module: nn.Module
    random_state: Tensor | None


def build_model(cfg: Config) -> BuiltModel:
    """Build the model of a config from the config's seed.

    The default scope must be that of the config.

    Raises:
        UserError: A key or a value in the config of the model is wrong.
    """
    randomness = cfg.get('randomness') or {}
    seed = randomness.get('seed')
    if seed is not None:
        # The process group, which knows the rank, is made by the Runner.
        rank = int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0)))
        set_random_seed(seed + rank if randomness.get('diff_rank_seed') else seed)
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        module: nn.Module = MODELS.build(model_cfg)
    except Exception as error:  # every package of the model has errors of its own for it
        text = str(error.args[0] if isinstance(error, KeyError) else error)
        # MMEngine puts the class before the message, once for each level of nesting.
        text = re.sub(r'class `\w+` in [\w/]+\.py: ', '', text)
        raise UserError(f'the model of the config cannot be built: {text}') from error
    return BuiltModel(module, None if seed is None else torch.get_rng_state())


def load_trained(cfg: Config, checkpoint: str, model: nn.Module | None = None) -> nn.Module:
    """The trained model of a config, on the CPU and in eval mode.

    The default scope must be that of the config.

    Args:
        cfg: The full config.
        checkpoint: The checkpoint file; every weight must fit.
        model: The model of the config, if it is built already.

    Raises:
        UserError: The model cannot be built, or the checkpoint does not belong to it.
    """
    model = model if model is not None else build_model(cfg).module
    check_checkpoint(checkpoint, model, whole=True)
    load_checkpoint(model, checkpoint, map_location='cpu')
    return model.eval()


def build_runner(cfg: Config, model: BuiltModel) -> Runner:
    """A Runner of a model that is built; it loads safely and runs on CPU processes as well.

    Args:
        cfg: The full config.
        model: What ``build_model`` gave for it.
    """
    os.environ.setdefault('LOCAL_RANK', '0')
    # Under a fixed name MMEngine gives a second run of the process the visualizer, and with it the
    # log folder, of the first; without one it takes the name of the run.
    (cfg.get('visualizer') or {}).pop('name', None)
    _drop_fused(cfg)
    if cfg.launcher != 'none' and not torch.cuda.is_available():
        # MMEngine's own start-up selects a CUDA device, and its default wrapper names one; both
        # step aside for a process group that exists and a wrapper that the config names.
        dist.init_process_group('gloo')
        if any(isinstance(part, nn.SyncBatchNorm) for part in model.module.modules()):
            print_log('SyncBN is for GPUs: on CPUs it is BN', 'current')
            model = model._replace(module=revert_sync_batchnorm(model.module))
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
            'device_ids': None,
        }
    named = cfg.get('runner_type', 'Runner')
    kind: type[Runner] = RUNNERS.get(named) if isinstance(named, str) else named
    # Runner.from_cfg copies the model with the config.
    arguments: dict[str, Any] = {
        key: cfg[key]
        for key in inspect.signature(kind.__init__).parameters
        if key in cfg and key not in ('model', 'cfg')
    }
    runner = kind(model=model.module, cfg=cfg, **arguments)
    for line in threads.said:
        print_log(line, 'current')
    for hook in ('FiniteLossHook', 'OptimizerFormHook'):  # of a room above this one
        runner.register_hook({'type': f'mmse.{hook}'})
    if model.random_state is not None:
        # The Runner has seeded again; the initial weights are drawn after the model's construction.
        torch.set_rng_state(model.random_state)
    return runner


def _drop_fused(cfg: Config) -> None:
    """Take the same optimizer in its usual form where torch has no fused one, or none here."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if not optimizer.get('fused') or isinstance(optimizer['type'], type):
        return
    parameter = nn.Parameter(torch.zeros(1, device=get_device()))
    try:
        OPTIMIZERS.get(optimizer['type'])([parameter], lr=0.1, fused=True)
    except (RuntimeError, TypeError) as error:
        print_log(f'optim_wrapper.optimizer.fused is left out: {error}', 'current')
        optimizer.pop('fused')
