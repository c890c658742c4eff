"""Tiny trainings lose what they lost when ``RESULTS_VERSION`` was last raised.

They go through what a trial goes through: initial weights, a checkpoint that is adapted to
attention, data, forward and backward pass, optimizer. They run in double precision, weights that
are drawn included, because single precision would hide too much: there, rounding decides which
side of a ReLU, a maximum or a threshold a number falls on, and moved the loss of the fourth
iteration by up to 5e-2. For the same reason the optimizer is SGD (AdamW divides a gradient by its
size, however small) and the detector has neither sampling nor suppression.

After a change that is meant to move them, raise the number and write the file anew::

    PYTHONPATH=tests python -m ablation.test_golden_losses
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from support.engine import CONFIGS, IN_PROCESS, SHAPES, TINY, TINY_FCN, shapes_at
from support.versions import draws_as_pinned

from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.initial_weights import keep_drawn_attention, save_initial_weights
from mmse.datasets.scenes import draw_scene
from mmse.datasets.shapes import ensure_shapes
from mmse.engine.build import build_model, build_runner

pytest_plugins = ('support.engine_fixtures',)

GOLDEN = Path(__file__).with_name('golden_losses.json')
WRITE_ANEW = 'PYTHONPATH=tests python -m ablation.test_golden_losses'
# Rounding moved no loss by more than 9e-13 of itself, over ATEN_CPU_CAPABILITY=default, avx2 and
# avx512 with 1 and 2 threads; that is the last of the four, the first moved by 5e-16.
ROUNDING = 1e-9

TINY_RETINANET = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.neck.out_channels': 16,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
    # With mmdet's 0.01 the losses hardly depend on the features.
    'model.bbox_head.init_cfg': {'type': 'Normal', 'layer': 'Conv2d', 'std': 0.1},
}
# Config, changes that make its model tiny, and a learning rate at which the losses move.
TRAININGS = {
    'detector': ('retinanet_se_r50', TINY_RETINANET, 0.05),
    'segmenter': ('fcn_se_r50', {**TINY_FCN, 'model.data_preprocessor.size': (64, 64)}, 0.5),
}
CASES = [
    (kind, attention, start)
    for kind in TRAININGS
    for attention in (None, 'sepp_v2_residual')
    for start in ('scratch', 'checkpoint')
]
OVERRIDES = {
    **TINY,
    **IN_PROCESS,
    'train_cfg.max_iters': 4,
    'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0, 'weight_decay': 1e-3},
    'optim_wrapper.paramwise_cfg.custom_keys': {'_delete_': True},
    'param_scheduler': None,
    'val_dataloader': None,
    'val_cfg': None,
    'val_evaluator': None,
    'default_hooks.checkpoint': None,
    # Branches that do not start at zero, or no attention could change anything.
    'model.backbone.zero_init_residual': False,
}


class Losses(Hook):
    """Keeps the loss of every iteration."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, outputs: Any = None, **_: Any) -> None:
        self.values.append(outputs['loss'].item())


def make_data(root: Path) -> None:
    """The built-in data, as PNG under the names of the JPEGs: decoders of JPEG differ."""
    ensure_shapes(root, **SHAPES)
    for i in range(SHAPES['num_train']):
        image = draw_scene(np.random.default_rng([0, 0, i]), SHAPES['size']).image
        file = root / 'train' / f'{i:06d}.jpg'
        file.write_bytes(cv2.imencode('.png', image)[1].tobytes())


def losses_of(kind: str, attention: str | None, start: str, data: Path, work: Path) -> list[float]:
    """The losses of the first four iterations of one training.

    From scratch the attention keeps the weights that torch draws: from the identity it would
    hardly act in so few iterations. From a checkpoint it starts at the identity.
    """
    name, tiny, rate = TRAININGS[kind]
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.merge_from_dict({**shapes_at(data, kind == 'detector'), **OVERRIDES, **tiny})
    cfg.model.backbone.attention = attention
    cfg.optim_wrapper.optimizer.lr = rate
    cfg.work_dir, cfg.launcher, cfg.randomness = str(work), 'none', {'seed': 0}
    init_default_scope(cfg.default_scope)
    if start == 'checkpoint':
        torch.manual_seed(1)
        backbone = MODELS.build({**cfg.model.backbone, 'attention': None})
        backbone.init_weights()
        torch.save(backbone.state_dict(), work / 'backbone.pth')
        pretrained = {'type': 'Pretrained', 'checkpoint': str(work / 'backbone.pth')}
        cfg.model.backbone.init_cfg = pretrained
    save_initial_weights(cfg, 0, work / 'initial_weights.pth')
    cfg.load_from = str(work / 'initial_weights.pth')
    if start == 'scratch':
        keep_drawn_attention(cfg)
    runner = build_runner(cfg, build_model(cfg))
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    return losses.values


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('golden') / 'shapes'
    make_data(root)
    return root


def name_of(case: tuple[str, str | None, str]) -> str:
    kind, attention, start = case
    return f'{kind}, {attention or "plain"}, from {"a " * (start == "checkpoint")}{start}'


def test_the_losses_are_those_of_this_results_version():
    golden = json.loads(GOLDEN.read_text())
    assert golden['results_version'] == RESULTS_VERSION, f'write the losses anew: {WRITE_ANEW}'
    assert list(golden['losses']) == [name_of(case) for case in CASES]


@pytest.mark.slow
@draws_as_pinned
@pytest.mark.usefixtures('double_precision', 'single_thread', 'fresh_logger', 'no_env_report')
@pytest.mark.parametrize('case', CASES, ids=name_of)
def test_losses_move_by_no_more_than_rounding(case, data, tmp_path):
    losses = losses_of(*case, data, tmp_path)
    golden = json.loads(GOLDEN.read_text())['losses'][name_of(case)]
    assert losses == pytest.approx(golden, rel=ROUNDING), (
        'trainings come to other results than before: if that is meant, raise RESULTS_VERSION in '
        f'mmse/ablation/identity.py and write the losses anew: {WRITE_ANEW}'
    )


def write_anew() -> None:
    torch.set_default_dtype(torch.float64)
    losses = {}
    for case in CASES:
        with TemporaryDirectory() as folder:
            data, work = Path(folder, 'shapes'), Path(folder, 'work')
            make_data(data)
            work.mkdir()
            losses[name_of(case)] = losses_of(*case, data, work)
    content = {'results_version': RESULTS_VERSION, 'losses': losses}
    GOLDEN.write_text(json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
    write_anew()
