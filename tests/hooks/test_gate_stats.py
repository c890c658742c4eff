"""What the hook logs of the gates, and that it changes nothing."""

import json
import math
import statistics
import time

import pytest
import torch
from support.engine import IN_PROCESS, args_for_train, read_scalars
from support.processes import in_process
from torch import nn

from mmse.engine.run import train
from mmse.hooks import GateStatsHook
from mmse.models import SEResNet

pytest_plugins = ('support.engine_fixtures',)
SETTINGS = {
    'squeeze': 'avg+max',
    'residual': True,
    'learnable_alpha': True,
    'learnable_temperature': True,
    'temperature': 2.0,
}


class FakeRunner:
    """As much of a Runner as the hook asks for."""

    iter = 0

    def __init__(self, model):
        self.model = model
        self.logged = {}
        self.visualizer = self

    def add_scalars(self, scalars, step):
        self.logged[step] = scalars


def gates_by_formula(backbone, x):
    """Every gate of a forward pass, from the inputs of the attention modules."""
    found = {}

    def keep(name):
        def hook(module, args, output):
            (y,) = args
            p = module.fusion_logits.softmax(0)
            s = p[0] * y.mean((2, 3)) + p[1] * y.amax((2, 3))
            hidden = nn.functional.silu(s @ module.fc1.weight.flatten(1).T + module.fc1.bias)
            z = hidden @ module.fc2.weight.flatten(1).T + module.fc2.bias
            t = nn.functional.softplus(module.raw_temperature)
            found[name] = torch.sigmoid(z / t)

        return hook

    handles = [
        module.register_forward_hook(keep(name.removesuffix('.attention')))
        for name, module in backbone.named_modules()
        if name.endswith('.attention')
    ]
    backbone(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize('fused', [True, False])
def test_logged_numbers_are_those_of_the_formula(fused):
    backbone = SEResNet(18, base_channels=8, attention=SETTINGS, fused=fused, norm_eval=False)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    x = torch.randn(3, 3, 64, 64)
    model = nn.Sequential()
    model.backbone = backbone
    backbone.eval()  # the statistics stay, so two passes are alike
    expected = gates_by_formula(backbone, x)
    runner, hook = FakeRunner(model), GateStatsHook(interval=2)
    hook.before_train(runner)
    for runner.iter in range(3):
        hook.before_train_iter(runner, runner.iter)
        backbone(x)
        hook.after_train_iter(runner, runner.iter)
    assert list(runner.logged) == [2]
    logged = runner.logged[2]
    assert len(expected) == 8
    for name, gate in expected.items():
        assert logged[f'gates/{name}/mean'] == pytest.approx(gate.mean().item(), abs=1e-5)
        deviation = math.sqrt(((gate - gate.mean()) ** 2).mean().item())
        assert logged[f'gates/{name}/spread'] == pytest.approx(deviation, abs=1e-5)
        share = (gate > 0.95).sum().item() / gate.numel()
        assert logged[f'gates/{name}/open'] == pytest.approx(share, abs=0.02)
        share = (gate < 0.05).sum().item() / gate.numel()
        assert logged[f'gates/{name}/closed'] == pytest.approx(share, abs=0.02)
        assert logged[f'gates/{name}/alpha'] == 1.0
        assert logged[f'gates/{name}/T'] == pytest.approx(2.0)
        assert logged[f'gates/{name}/weight_of_avg'] == 0.5
    both = torch.cat([expected['layer3.0'].flatten(), expected['layer3.1'].flatten()])
    assert logged['gates/layer3/mean'] == pytest.approx(both.mean().item(), abs=1e-5)
    assert any(logged[f'gates/layer{i}/open'] > 0 for i in range(1, 5))
    assert all(block.attention.watcher is None for _, block in backbone.attention_blocks())


def test_what_is_not_learned_is_not_logged():
    model = nn.Sequential()
    model.backbone = SEResNet(18, base_channels=8, attention=[None, 'se', None, None])
    runner, hook = FakeRunner(model), GateStatsHook(interval=1)
    hook.before_train_iter(runner, 0)
    model.backbone(torch.randn(2, 3, 64, 64))
    hook.after_train_iter(runner, 0)
    kinds = {key.split('/')[1] for key in runner.logged[1]}
    assert kinds == {'layer2', 'layer2.0', 'layer2.1'}
    assert {key.split('/')[2] for key in runner.logged[1]} == {'mean', 'spread', 'closed', 'open'}


def test_a_compiled_backbone_is_left_alone(logged_warnings):
    model = nn.Sequential()
    model.backbone = SEResNet(18, attention='se', compile={'backend': 'eager'})
    runner, hook = FakeRunner(model), GateStatsHook(interval=1)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0)
    assert runner.logged == {}
    assert any('a compiled backbone is not watched' in text for text in logged_warnings)


@pytest.mark.slow
def test_training_is_the_same_to_the_bit_with_the_hook(tiny_configs, tmp_path):
    hooks = {
        'with': [{'type': 'mmse.IterationSeedHook'}, {'type': 'mmse.GateStatsHook', 'interval': 2}],
        'without': [{'type': 'mmse.IterationSeedHook'}],
    }
    for name, custom_hooks in hooks.items():
        options = {**IN_PROCESS, 'custom_hooks': custom_hooks}
        args = args_for_train(tiny_configs['seg'], tmp_path / name, cfg_options=options)
        assert in_process(train, args) == 0
    states = [torch.load(tmp_path / n / 'iter_8.pth', weights_only=False) for n in hooks]
    ours, theirs = (state['state_dict'] for state in states)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lines = read_scalars(tmp_path / 'with')
    watched = [line['step'] for line in lines if 'gates/layer1.0/mean' in line]
    assert watched == [2, 4, 6, 8]
    plain = [line for line in lines if not any(key.startswith('gates/') for key in line)]
    assert json.dumps(plain) == json.dumps(read_scalars(tmp_path / 'without'))


def test_an_iteration_that_logs_nothing_takes_under_a_hundredth(record_property):
    model = nn.Sequential()
    model.backbone = SEResNet(18, attention='sepp_v2_residual', norm_eval=False)
    runner, hook = FakeRunner(model), GateStatsHook(interval=100)
    images = torch.randn(2, 3, 64, 64)  # small: the share is smaller in a real step

    def step():
        sum(out.sum() for out in model.backbone(images)).backward()

    def hooks():
        hook.before_train_iter(runner, 0)
        hook.after_train_iter(runner, 0)

    def seconds(what, times):
        start = time.perf_counter()
        for _ in range(times):
            what()
        return (time.perf_counter() - start) / times

    hook.before_train(runner)
    step()
    rounds = [seconds(hooks, 200) / seconds(step, 1) for _ in range(7)]
    share = statistics.median(rounds)
    record_property('share of a step', share)
    assert runner.logged == {}
    assert share < 0.01
