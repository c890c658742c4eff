"""Data-parallel training on two CPU processes: every parameter is used, replicas stay equal."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.engine import CONFIGS, read_scalars, shapes_at
from support.two import batch_of, join, loss_of, run_on_two
from torch.nn.parallel import DistributedDataParallel

from mmse.checkpoints import read_checkpoint
from mmse.models import SEResNet
from mmse.models.settings import PRESETS

pytest_plugins = ('support.engine_fixtures',)

SIZE = {'depth': 18, 'base_channels': 8, 'norm_eval': False}
BOTH = {'squeeze': 'avg+max', 'fusion': 'softmax'}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {'attention': name} for name in PRESETS},
    'learned temperature': {'attention': {'preset': 'se', 'learnable_temperature': True}},
    'learned alpha': {
        'attention': {'squeeze': 'max', 'residual': True, 'learnable_alpha': True, 'bias': False}
    },
    'everything learned': {
        'attention': {
            **BOTH,
            'residual': True,
            'learnable_alpha': True,
            'learnable_temperature': True,
            'gate': 'hardsigmoid',
        }
    },
    'lists': {'attention': [None, 'se', ['sepp_v2', None], [BOTH, 'sepp_v2_residual']]},
    'frozen stages': {'attention': 'sepp_v2', 'frozen_stages': 2},
    'trained in frozen stages': {
        'attention': 'sepp_v2_residual',
        'frozen_stages': 2,
        'train_frozen_attention': True,
    },
    'Bottleneck': {'attention': 'sepp_v2_residual', 'depth': 50, 'base_channels': 4},
    'recomputed': {'attention': 'sepp_v2_residual', 'with_cp': True},
    'norms recomputed': {'attention': [None, 'se', 'se', 'sepp_v2'], 'recompute': 'norms'},
    'also convolutions': {'attention': 'sepp_v2_residual', 'recompute': 'expand'},
}


def train_variants(rank: int, store: str, result: str) -> None:
    """Three steps of every variant; writes what went wrong."""
    join(rank, store)
    problems = []
    for name, settings in VARIANTS.items():
        torch.manual_seed(0)
        model = SEResNet(**{**SIZE, **settings}).double()
        model.init_weights()
        model.train()
        # As MMEngine wraps a model; an unused parameter is an error at the second step.
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
        before = {key: p.detach().clone() for key, p in trained.items()}
        optimizer = torch.optim.SGD(trained.values(), lr=0.1)
        try:
            for step in range(3):
                optimizer.zero_grad()
                loss_of(wrapped, batch_of(rank, step)).backward()
                optimizer.step()
        except RuntimeError as error:
            problems.append(f'{name}: {error}')
            continue
        for key, parameter in model.named_parameters():
            both = [torch.empty_like(parameter) for _ in range(2)]
            dist.all_gather(both, parameter.detach())
            if not torch.equal(*both):
                problems.append(f'{name}: the replicas of {key} differ')
        moved = [key for key, p in trained.items() if not torch.equal(p, before[key])]
        if any(p.grad is None for p in trained.values()) or len(moved) < 0.6 * len(trained):
            problems.append(f'{name}: only {len(moved)} of {len(trained)} parameters moved')
    if rank == 0:
        Path(result).write_text('\n'.join(problems))


def compare_gradients(rank: int, store: str, result: str) -> None:
    """Gradients of two processes against the mean of what one process computes alone."""
    join(rank, store)
    torch.manual_seed(0)
    model = SEResNet(
        **SIZE, zero_init_residual=False, attention=VARIANTS['everything learned']['attention']
    ).double()
    model.init_weights()
    alone = copy.deepcopy(model)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    loss_of(wrapped, batch_of(rank, 0)).backward()
    (loss_of(alone, batch_of(0, 0)) + loss_of(alone, batch_of(1, 0))).backward()
    worst = 0.0
    for (key, parameter), reference in zip(
        model.named_parameters(), alone.parameters(), strict=True
    ):
        assert reference.grad.abs().max() > 0, key
        error = (parameter.grad - reference.grad / 2).abs().max() / reference.grad.abs().max()
        worst = max(worst, float(error))
    if rank == 0:
        Path(result).write_text(str(worst))


@pytest.mark.slow
def test_every_variant_trains_on_two_processes(tmp_path: Path) -> None:
    assert run_on_two(train_variants, tmp_path) == ''


def test_gradients_are_the_mean_of_the_processes(tmp_path: Path) -> None:
    assert float(run_on_two(compare_gradients, tmp_path)) < 1e-10


@pytest.mark.slow
def test_torchrun(tiny_configs: dict[str, Path], tmp_path: Path) -> None:
    """Two processes make the data, train, validate, and write one checkpoint."""
    options = [
        f'{key}={value}'
        for key, value in shapes_at(tmp_path / 'data', True).items()
        if not key.endswith('shapes')
    ]
    options += ['train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'model.backbone.depth=18']
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
            *(CONFIGS.parent / 'tools' / 'train.py', tiny_configs['det']),
            *('--launcher', 'pytorch', '--work-dir', 'work', '--cfg-options', *options),
        ],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    work_dir = tmp_path / 'work'
    assert done.stdout.count('Training is done.') == 1
    # Where the other process made the data, nothing is said: it logs errors alone.
    assert done.stdout.count('Generated the built-in shapes data set') <= 1
    assert (tmp_path / 'data/dataset.json').is_file()
    assert sorted(p.name for p in work_dir.glob('*.pth')) == ['iter_3.pth', 'iter_4.pth']
    assert len(list(work_dir.glob('*/vis_data'))) == 1
    lines = read_scalars(work_dir)
    assert [line['step'] for line in lines if 'lr' in line] == [1, 2, 3, 4]
    assert [line['step'] for line in lines if 'coco/bbox_mAP' in line] == [4]
    weights = read_checkpoint(work_dir / 'iter_4.pth')['state_dict']
    assert not any(key.startswith('module.') for key in weights)
    assert all(value.isfinite().all() for value in weights.values())
    assert (work_dir / 'predictions.png').is_file()
