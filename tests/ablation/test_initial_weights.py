"""All arms of a seed begin with the same function, on the same data."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from support.engine import IN_PROCESS

from mmse.ablation.initial_weights import keep_drawn_attention, save_initial_weights
from mmse.ablation.study import Arm, Study
from mmse.ablation.tasks import Task
from mmse.ablation.trial import run_trial
from mmse.ablation.variants import resolve
from mmse.engine.build import build_model, build_runner

pytest_plugins = ('support.engine_fixtures',)

ATTENTION = 'model.backbone.attention'
ARMS = {
    'plain': None,
    'avg': {'squeeze': 'avg', 'act': 'relu', 'bias': False},
    'both': {'squeeze': 'avg+max', 'residual': True, 'learnable_alpha': True, 'alpha': 0.5},
    'hard': {'squeeze': 'max', 'gate': 'hardsigmoid', 'learnable_temperature': True},
}


@pytest.fixture(params=['det', 'seg'])
def variants(request, tiny_configs, fresh_logger, no_env_report):
    """A study of four arms on a tiny detector or segmenter."""
    metric = {'det': 'coco/bbox_mAP', 'seg': 'mIoU'}[request.param]
    # Branches that do not start at zero, or no attention could change anything.
    overrides = {**IN_PROCESS, 'model.backbone.zero_init_residual': False}
    task = Task('', str(tiny_configs[request.param]), metric, 1.0, overrides)
    arms = [Arm(name, {}, {ATTENTION: attention}) for name, attention in ARMS.items()]
    return resolve(Study('q', [task], {}, arms, [], [0], 'identity', [1], 0.05, None))


def first_step(variant, seed: int, folder: Path, start: str):
    """Inputs and loss of the first iteration, and the weights before it."""
    cfg = copy.deepcopy(variant.cfg)
    cfg.work_dir, cfg.launcher = str(folder), 'none'
    cfg.randomness = {'seed': seed}
    init_default_scope(cfg.default_scope)
    folder.mkdir()
    save_initial_weights(cfg, seed, folder / 'initial_weights.pth')
    if start == 'default':
        keep_drawn_attention(cfg)
    runner = build_runner(cfg, build_model(cfg))
    runner._init_model_weights()
    load_checkpoint(runner.model, str(folder / 'initial_weights.pth'))
    runner.model.eval()  # the running statistics of the start, in every arm
    weights = {k: v.clone() for k, v in runner.model.state_dict().items()}
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader, seed=seed)))
    torch.manual_seed(0)  # proposals that are sampled
    data = runner.model.data_preprocessor(batch, True)
    losses = runner.model.loss(data['inputs'], data['data_samples'])
    loss, _ = runner.model.parse_losses(losses)
    return data['inputs'], loss.item(), weights


@pytest.mark.slow
@pytest.mark.usefixtures('single_thread')
def test_arms_of_a_seed_compute_the_same_at_step_0(variants, tmp_path):
    steps = [first_step(v, 3, tmp_path / v.arm.name, 'identity') for v in variants]
    inputs, loss, plain = steps[0]
    for other_inputs, other_loss, _ in steps[1:]:
        assert torch.equal(inputs, other_inputs)
        assert other_loss == pytest.approx(loss, rel=1e-5)
    heads = [k for k in plain if not k.startswith('backbone.')]
    for _, _, weights in steps[1:]:
        assert all(torch.equal(weights[k], plain[k]) for k in heads)
    _, other_seed, _ = first_step(variants[0], 4, tmp_path / 'seed4', 'identity')
    assert other_seed != pytest.approx(loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures('single_thread')
def test_the_default_start_shares_what_arms_have_in_common(variants, tmp_path):
    steps = [first_step(v, 3, tmp_path / v.arm.name, 'default') for v in variants]
    plain = steps[0][2]
    for _, loss, weights in steps[1:]:
        assert all(torch.equal(weights[key], plain[key]) for key in plain)
        fc2 = [v for k, v in weights.items() if k.endswith('attention.fc2.weight')]
        assert all(weight.abs().min() > 0 for weight in fc2)
        assert loss != pytest.approx(steps[0][1], rel=1e-4)


def test_a_start_begins_from_the_checkpoint_of_the_config(variants, tmp_path):
    cfg = copy.deepcopy(variants[0].cfg)
    init_default_scope(cfg.default_scope)
    save_initial_weights(cfg, 0, tmp_path / 'zero.pth')
    cfg.load_from = str(tmp_path / 'zero.pth')
    save_initial_weights(cfg, 1, tmp_path / 'one.pth')
    zero, one = (torch.load(tmp_path / f'{n}.pth')['state_dict'] for n in ('zero', 'one'))
    assert all(torch.equal(zero[key], one[key]) for key in zero)


def test_a_trial_starts_from_torchvisions_weights_without_torchvision(
    variants, tmp_path, monkeypatch
):
    """It draws its start before it has a Runner."""
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    cfg = copy.deepcopy(variants[1].cfg)
    torch.manual_seed(1)
    weights = MODELS.build({**cfg.model.backbone, 'attention': None}).state_dict()
    monkeypatch.setattr('mmengine.runner.checkpoint.load_url', lambda *_, **__: weights)
    cfg.model.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': 'torchvision://resnet18'}
    head = {'id': 'x', 'task': '', 'arm': 'x', 'seed': 0, 'recipe': '', 'data': ''}
    cfg.ablation = {
        'head': {**head, 'results_version': 1},
        'record': str(tmp_path / 'record'),
        'metric': variants[1].task.metric,
        'start': 'identity',
        'keep_checkpoints': False,
    }
    cfg.dump(tmp_path / 'config.py')

    class Drawn(Exception):
        pass

    def stop(*_, **__):
        raise Drawn

    monkeypatch.setattr('mmse.ablation.trial.preflight', stop)
    with pytest.raises(Drawn):
        run_trial(tmp_path)
    start = torch.load(tmp_path / 'initial_weights.pth')['state_dict']
    for key, value in weights.items():
        assert torch.equal(start[f'backbone.{key}'], value), key
