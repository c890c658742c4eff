"""The backbone with attention: numbers, freezing, initialization and what it says."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmse.models import (
    ChannelAttention,
    SEBasicBlock,
    SEBottleneck,
    SEResNet,
    SEResNetV1c,
    SEResNetV1d,
    SEResNeXt,
)
from mmse.models.resolve import resolve_attention

pytestmark = pytest.mark.usefixtures('single_thread')

SMALL = {'base_channels': 8}
MIXED = [None, 'se', {'preset': 'sepp_v2_residual'}, ['se_max', None, 'se_avgmax']]


def blocks(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in net.named_modules():
        if isinstance(module, SEBasicBlock | SEBottleneck):
            yield name, module


def spread(net: nn.Module) -> nn.Module:
    """Double precision with random norms and gates."""
    net.double()
    with torch.no_grad():
        for name, param in net.named_parameters():
            if param.dim() < 2 or 'attention' in name:
                param.copy_(0.5 * torch.randn_like(param) + (0.5 if param.dim() < 2 else 0))
    return net


def with_formula(plain: nn.Module, net: nn.Module, formula: Callable, full: Callable) -> nn.Module:
    """A plain ResNet whose last norms pass their output through the attention's formula."""
    params = {k: v.detach().clone().requires_grad_() for k, v in net.named_parameters()}
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if '.attention.' not in k})
    plain.gates = {k: v for k, v in params.items() if '.attention.' in k}
    for name, block in blocks(net):
        if block.attention is None:
            continue
        prefix = f'{name}.attention.'
        gate = {k[len(prefix) :]: v for k, v in plain.gates.items() if k.startswith(prefix)}
        settings = full(**block.attention.settings.to_dict())
        last = 'bn3' if isinstance(block, SEBottleneck) else 'bn2'
        plain.get_submodule(f'{name}.{last}').register_forward_hook(
            lambda _m, _i, y, gate=gate, settings=settings: formula(y, gate, settings)
        )
    return plain


BACKBONES: list[tuple[type[nn.Module], str, dict[str, Any]]] = [
    (SEResNet, 'ResNet', {'depth': 18, 'attention': 'se'}),
    (SEResNet, 'ResNet', {'depth': 18, 'attention': [None, 'sepp_v2', ['se', None], {}]}),
    (SEResNet, 'ResNet', {'depth': 50, 'attention': MIXED}),
    (SEResNet, 'ResNet', {'depth': 50, 'attention': 'se_gated', 'style': 'caffe'}),
    (SEResNet, 'ResNet', {'depth': 50, 'attention': 'sepp_v2', 'dilations': (1, 1, 2, 4)}),
    (SEResNetV1d, 'ResNetV1d', {'depth': 50, 'attention': 'sepp_v2_residual'}),
    (SEResNeXt, 'ResNeXt', {'depth': 50, 'attention': 'se_max', 'groups': 4, 'base_width': 16}),
]


@pytest.mark.parametrize('norm_eval', [True, False])
@pytest.mark.parametrize(('kind', 'name', 'settings'), BACKBONES, ids=lambda v: str(v)[:60])
def test_attention_inside_a_plain_resnet(
    kind, name, settings, norm_eval, attention_formula, full_settings
) -> None:
    backbones = pytest.importorskip('mmdet.models.backbones')
    net = spread(kind(norm_eval=norm_eval, **SMALL, **settings))
    others = {k: v for k, v in settings.items() if k != 'attention'}
    plain = getattr(backbones, name)(norm_eval=norm_eval, **SMALL, **others).double()
    with_formula(plain, net, attention_formula, full_settings)
    net.train()
    plain.train()
    x = torch.randn(2, 3, 64, 64).double()
    results = []
    for model in (net, plain):
        leaf = x.clone().requires_grad_()
        outs = model(leaf)
        names = dict(model.named_parameters()) | getattr(model, 'gates', {})
        grads = torch.autograd.grad(sum(o.square().mean() for o in outs), [leaf, *names.values()])
        results.append((outs, dict(zip(['input', *names], grads, strict=True))))
    for got, want in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    assert results[0][1].keys() == results[1][1].keys()
    for key, grad in results[1][1].items():
        torch.testing.assert_close(results[0][1][key], grad, rtol=1e-7, atol=1e-9)
    for key, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(net.named_buffers())[key], buffer, rtol=0, atol=1e-10)


def test_same_as_the_plugin_in_mmdet() -> None:
    backbones = pytest.importorskip('mmdet.models.backbones')
    plugin = {'cfg': {'type': 'mmse.ChannelAttention', 'preset': 'sepp_v2'}}
    plugin['position'] = 'after_conv3'
    other = backbones.ResNet(50, plugins=[plugin], **SMALL)
    net = SEResNet(50, attention='sepp_v2', **SMALL)
    name = other.layer1[0].after_conv3_plugin_names[0]
    other.load_state_dict(
        {k.replace('.attention.', f'.{name}.'): v for k, v in net.state_dict().items()}
    )
    x = torch.randn(2, 3, 64, 64).double()
    net.double().eval()
    other.double().eval()
    for got, want in zip(net(x), other(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('preset', ['se', 'sepp_v2', 'sepp_v2_residual', 'se_max'])
def test_zero_fc2_and_a_divided_norm_is_the_plain_network(preset: str) -> None:
    plain = spread(SEResNet(50, norm_eval=False, **SMALL))
    net = SEResNet(50, attention=preset, norm_eval=False, preserve_pretrained=False, **SMALL)
    net.double().load_state_dict(plain.state_dict(), strict=False)
    for _, block in blocks(net):
        nn.init.zeros_(block.attention.fc2.weight)
        nn.init.zeros_(block.attention.fc2.bias)
        factor = 1.5 if preset == 'sepp_v2_residual' else 0.5
        block.norm3.weight.data /= factor
        block.norm3.bias.data /= factor
    x = torch.randn(2, 3, 64, 64).double()
    for mode in (True, False):
        for got, want in zip(net.train(mode)(x), plain.train(mode)(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_attention_is_off_by_default() -> None:
    net = SEResNet(50, **SMALL)
    assert not any(isinstance(m, ChannelAttention) for m in net.modules())
    assert all(block.attention is None for _, block in blocks(net))


@pytest.mark.parametrize(
    ('kind', 'depth', 'counts'),
    [
        (SEResNet, 18, (2, 2, 2, 2)),
        (SEResNet, 34, (3, 4, 6, 3)),
        (SEResNet, 50, (3, 4, 6, 3)),
        (SEResNetV1c, 101, (3, 4, 23, 3)),
        (SEResNetV1d, 152, (3, 8, 36, 3)),
        (SEResNeXt, 101, (3, 4, 23, 3)),
    ],
)
def test_every_block_has_what_the_lists_say(kind, depth: int, counts: tuple[int, ...]) -> None:
    third = [('se', None, {'preset': 'se_max'})[i % 3] for i in range(counts[2])]
    net = kind(depth=depth, attention=['sepp_v2', None, third, 'se'], **SMALL)
    assert tuple(len(getattr(net, f'layer{i}')) for i in range(1, 5)) == counts
    given = [['sepp_v2'] * counts[0], [None] * counts[1], third, ['se'] * counts[3]]
    for i, entries in enumerate(given, 1):
        for block, entry in zip(getattr(net, f'layer{i}'), entries, strict=True):
            assert type(block) is (SEBasicBlock if depth < 50 else SEBottleneck)
            if entry is None:
                assert block.attention is None
            else:
                assert block.attention.settings == resolve_attention(entry)


def test_state_dict_is_the_plain_one_plus_attention() -> None:
    plain = set(SEResNet(50, **SMALL).state_dict())
    keys = set(SEResNet(50, attention=MIXED, **SMALL).state_dict())
    fc = {f'attention.fc{i}.{kind}' for i in (1, 2) for kind in ('weight', 'bias')}
    fc.add('attention._extra_state')  # the settings
    extra = {f'layer2.{i}.{key}' for i in range(4) for key in fc}
    learned = fc | {'attention.fusion_logits', 'attention.alpha'}
    extra |= {f'layer3.{i}.{key}' for i in range(6) for key in learned}
    extra |= {f'layer4.{i}.{key}' for i in (0, 2) for key in fc}
    assert keys - plain == extra
    assert plain <= keys


@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(with_cp: bool) -> None:
    attention = ['se', 'sepp_v2', {'preset': 'sepp_v2_residual', 'learnable_temperature': True}, {}]
    net = SEResNet(18, attention=attention, with_cp=with_cp, norm_eval=False, **SMALL).train()
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(out.square().sum() for out in net(x)).backward()
    for name, param in net.named_parameters():
        assert param.grad is not None, name
        assert param.grad.isfinite().all(), name


def test_attention_from_a_config_file(tmp_path) -> None:
    path = tmp_path / 'config.py'
    path.write_text("backbone = dict(depth=18, attention=[None, 'se', ['se', None], dict()])\n")
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({'backbone.attention.3.gate': 'hardsigmoid'})
    net = SEResNet(**cfg.backbone, **SMALL)
    assert net.layer3[1].attention is None
    assert net.layer4[1].attention.settings.gate == 'hardsigmoid'


def test_impossible_depth() -> None:
    for kind in (SEResNet, SEResNeXt):
        with pytest.raises((KeyError, ValueError), match='20'):
            kind(depth=20)
    with pytest.raises((KeyError, ValueError), match='18'):
        SEResNeXt(depth=18)


# Initialization


def test_init_weights_keeps_the_documented_starts() -> None:
    changes = {'alpha': 0.25, 'temperature': 3.0, 'learnable_temperature': True}
    net = SEResNet(50, attention={'preset': 'sepp_v2_residual', **changes}, **SMALL)
    net.init_weights()
    for _, block in blocks(net):
        assert not block.norm3.weight.any()
        assert not block.attention.fusion_logits.any()
        assert block.attention.alpha.tolist() == [0.25]
        assert abs(float(block.attention.temperature.detach()) - 3) < 1e-5
        assert block.attention.fc1.weight.std() > 0
        assert block.attention.fc2.weight.std() > 0


@pytest.mark.parametrize('zero', [True, False])
@pytest.mark.parametrize(('kind', 'depth'), [(SEResNet, 18), (SEResNetV1d, 50), (SEResNeXt, 50)])
def test_zero_init_residual_is_honoured_by_every_form(kind, depth: int, zero: bool) -> None:
    net = kind(depth=depth, attention='se', zero_init_residual=zero, **SMALL)
    net.init_weights()
    for name, block in blocks(net):
        last = block.norm2 if depth < 50 else block.norm3
        assert torch.equal(last.weight, torch.full_like(last.weight, 0.0 if zero else 1.0)), name


# Freezing


def gate_params(net: nn.Module, stage: int) -> list[nn.Parameter]:
    return [p for n, p in net.named_parameters() if re.match(rf'layer{stage}\..*\.attention\.', n)]


def test_frozen_stages_freeze_attention_too() -> None:
    net = SEResNet(18, attention='sepp_v2', frozen_stages=2, norm_eval=False, **SMALL).train()
    for name, param in net.named_parameters():
        frozen = name.startswith(('conv1.', 'bn1.', 'layer1.', 'layer2.'))
        assert param.requires_grad is not frozen, name
    for stage in (net.layer1, net.layer2):
        assert not any(m.training for m in stage.modules())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    sum(o.sum() for o in net(torch.randn(2, 3, 64, 64))).backward()
    for name, param in net.named_parameters():
        assert (param.grad is not None) == param.requires_grad, name
    for name, value in net.state_dict().items():
        if name.startswith(('bn1.', 'layer1.', 'layer2.')):
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize('depth', [18, 50])
def test_train_frozen_attention_gets_the_true_gradient(depth: int) -> None:
    settings = {'depth': depth, 'attention': 'sepp_v2_residual', 'norm_eval': True, **SMALL}
    net = SEResNet(frozen_stages=2, train_frozen_attention=True, **settings)
    spread(net)
    free = SEResNet(**settings).double()
    free.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 64).double()
    for model in (net, free):
        sum(o.square().mean() for o in model.train()(x)).backward()
    for (name, param), other in zip(net.named_parameters(), free.parameters(), strict=True):
        frozen = name.startswith(('conv1.', 'bn1.', 'layer1.', 'layer2.'))
        if frozen and '.attention.' not in name:
            assert not param.requires_grad, name
            assert param.grad is None, name
        else:
            assert param.requires_grad, name
            torch.testing.assert_close(param.grad, other.grad, rtol=1e-9, atol=1e-12)
    assert not any(m.training for m in net.layer1.modules() if isinstance(m, nn.BatchNorm2d))
    assert gate_params(net, 1) and all(p.requires_grad for p in gate_params(net, 1))


def test_train_returns_self_and_keeps_frozen_stages() -> None:
    net = SEResNet(18, attention='se', frozen_stages=1, norm_eval=True, **SMALL)
    assert net.train() is net
    assert net.eval() is net
    assert net.train(True) is net
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(p.requires_grad for p in net.layer1.parameters())
    assert len(net.eval().train(False)(torch.randn(1, 3, 32, 32))) == 4


def start_training(net: nn.Module) -> None:
    """What MMEngine's runner does to the model: initialize, train, validate, train."""
    net.init_weights()
    for mode in (True, False, True):
        net.train(mode)


def about_freezing(messages: list[str]) -> list[str]:
    return [m for m in messages if 'train_frozen_attention' in m]


@pytest.mark.parametrize(
    ('settings', 'named', 'unnamed'),
    [
        ({'frozen_stages': 1}, ['layer1'], ['layer2', 'layer3', 'layer4']),
        ({'frozen_stages': 2}, ['layer1', 'layer2'], ['layer3', 'layer4']),
        (
            {'frozen_stages': 3, 'attention': [None, 'se', [None, 'se'], 'se']},
            ['layer2', 'layer3'],
            ['layer1', 'layer4'],
        ),
    ],
)
def test_frozen_random_attention_is_warned_about(
    settings, named: list[str], unnamed: list[str], logged_warnings: list[str]
) -> None:
    net = SEResNet(18, **{'attention': 'se', **SMALL, **settings})
    start_training(net)
    (message,) = about_freezing(logged_warnings)
    assert 'frozen_stages' in message
    assert all(stage in message for stage in named)
    assert not any(stage in message for stage in unnamed)


@pytest.mark.parametrize(
    'settings',
    [
        {'frozen_stages': -1},
        {'frozen_stages': 0},
        {'frozen_stages': 1, 'train_frozen_attention': True},
        {'frozen_stages': 1, 'attention': [None, 'se', 'se', 'se']},
        {'frozen_stages': 1, 'attention': None},
    ],
    ids=str,
)
def test_no_warning_where_nothing_random_is_frozen(settings, logged_warnings: list[str]) -> None:
    net = SEResNet(18, **{'attention': 'se', **SMALL, **settings})
    start_training(net)
    assert not about_freezing(logged_warnings)


@pytest.mark.parametrize(
    ('source', 'preserve', 'warnings'), [('se', True, 0), (None, True, 0), (None, False, 1)]
)
def test_frozen_attention_from_a_checkpoint(
    source, preserve: bool, warnings: int, tmp_path, logged_warnings: list[str]
) -> None:
    path = str(tmp_path / 'start.pth')
    saved = SEResNet(18, attention=source, **SMALL)
    torch.save({'state_dict': saved.state_dict()}, path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': path}
    settings = {'frozen_stages': 1, 'init_cfg': init_cfg, 'preserve_pretrained': preserve}
    net = SEResNet(18, attention='se', **settings, **SMALL)
    start_training(net)
    assert len(about_freezing(logged_warnings)) == warnings
    assert torch.equal(net.layer1[0].conv1.weight, saved.layer1[0].conv1.weight)
    if source:
        for got, want in zip(gate_params(net, 1), gate_params(saved, 1), strict=True):
            assert torch.equal(got, want)


# What printing shows


def stage_lines(net: nn.Module) -> dict[int, str]:
    lines: dict[int, str] = {}
    for line in repr(net).splitlines():
        match = re.match(r'\s*layer(\d): (.*)', line)
        if match:
            assert int(match[1]) not in lines
            lines[int(match[1])] = match[2]
    return lines


def test_repr_tells_each_stages_attention() -> None:
    plain = stage_lines(SEResNet(50, **SMALL))
    assert sorted(plain) == [1, 2, 3, 4]
    assert all('no attention' in line for line in plain.values())
    mixed = stage_lines(SEResNet(50, attention=MIXED, **SMALL))
    assert sorted(mixed) == [1, 2, 3, 4]
    assert 'no attention' in mixed[1]
    assert '4 x' in mixed[2] and 'avg' in mixed[2] and 'avg+max' not in mixed[2]
    assert '6 x' in mixed[3] and 'avg+max' in mixed[3] and 'softmax' in mixed[3]
    assert 'max' in mixed[4] and 'avg+max' in mixed[4] and 'sum' in mixed[4]


def test_repr_of_a_short_backbone() -> None:
    cfg: dict[str, Any] = {'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1)}
    net = SEResNet(18, attention='se', out_indices=(1,), **cfg, **SMALL)
    assert sorted(stage_lines(net)) == [1, 2]
    (out,) = net(torch.randn(1, 3, 32, 32))
    assert isinstance(out, Tensor)
