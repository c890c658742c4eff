"""Weights that are loaded into a backbone: whose they are, the identity start, and refusals."""

import sys
from pathlib import Path

import pytest
import torch
from mmdet.models import ResNet
from support.precision import beyond, maps, network_bars, worst
from torch import nn

from mmse.checkpoints.belonging import check_pretrained
from mmse.models import SEResNet
from mmse.models.settings import PRESETS
from mmse.utils.errors import UserError

SMALL = {'base_channels': 16, 'norm_eval': False}
VARIANTS = [
    *PRESETS,
    *({'squeeze': squeeze} for squeeze in ('avg', 'max', 'avg+max')),
    *({'gate': gate, 'temperature': t} for gate in ('sigmoid', 'hardsigmoid') for t in (0.1, 7.0)),
    *({'residual': True, 'alpha': alpha} for alpha in (-1.0, 0.0, 0.3, 4.0)),
    {'residual': True, 'learnable_alpha': True, 'learnable_temperature': True, 'bias': False},
    [None, 'se', None, 'sepp_v2'],
    [None, None, None, [None, 'sepp_v2_residual', None]],
]


def plain_network(depth: int = 50, **kwargs) -> ResNet:
    """A plain ResNet whose norms are as uneven as trained ones."""
    torch.manual_seed(1)
    net = ResNet(depth=depth, **{**SMALL, **kwargs})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_identity_start(variant, training: bool, record_property) -> None:
    plain = plain_network().double()
    plain.train(training)
    ours = SEResNet(depth=50, attention=variant, **SMALL).double()
    ours.load_state_dict(plain.state_dict(), strict=False)
    ours.train(training)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    difference, _ = worst(maps(ours(x)), maps(plain(x)))
    record_property('worst relative difference of the identity start, float64', difference)
    assert difference <= 1e-10


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('variant', VARIANTS[:-1], ids=str)
def test_identity_start_in_single_precision(depth: int, variant, record_property) -> None:
    plain = plain_network(depth)
    plain.eval()
    ours = SEResNet(depth=depth, attention=variant, **SMALL)
    ours.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    # In training the statistics of small batches amplify rounding, in the plain network as well.
    for training in (False, True):
        plain.train(training)
        exact, bars = network_bars(plain, x)
        got = maps(ours.train(training)(x))
        mode = 'training' if training else 'evaluation'
        record_property(f'worst error at the identity start, float32 {mode}', worst(got, exact)[0])
        assert not beyond(got, exact, bars)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_identity_start_from_weights_in_half_precision(dtype: torch.dtype) -> None:
    """A gain of 1.5 is divided out in the precision of the backbone."""
    weights = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in plain_network().state_dict().items()
    }
    plain, ours = ResNet(depth=50, **SMALL), SEResNet(50, attention='sepp_v2_residual', **SMALL)
    for net in (plain, ours):
        net.load_state_dict(weights, strict=False)
        net.eval()
    x = torch.randn(2, 3, 64, 64)
    assert worst(maps(ours(x)), maps(plain(x)))[0] <= 1e-5


@pytest.mark.parametrize('attention', [None, 'sepp_v2'])
def test_weights_of_a_plain_network_in_one_with_deformable_convolutions(
    attention: str | None, tmp_path: Path
) -> None:
    """Their offsets are new, and zero."""
    file = tmp_path / 'resnet50.pth'
    torch.save({'state_dict': plain_network(base_channels=64).state_dict()}, file)
    ours = SEResNet(
        50,
        dcn={'type': 'DCN', 'deform_groups': 1, 'fallback_on_stride': False},
        stage_with_dcn=(False, False, False, True),
        attention=attention,
        init_cfg={'type': 'Pretrained', 'checkpoint': str(file)},
    )
    check_pretrained(nn.ModuleDict({'backbone': ours}))
    ours.init_weights()
    offset = ours.layer4[0].conv2.conv_offset
    assert not offset.weight.any() and not offset.bias.any()
    plain = plain_network(base_channels=64)
    assert torch.equal(ours.layer4[0].conv2.weight, plain.layer4[0].conv2.weight)


def test_with_group_norm() -> None:
    norm_cfg = {'type': 'GN', 'num_groups': 4}
    plain = plain_network(norm_cfg=norm_cfg).double()
    ours = SEResNet(depth=50, attention='sepp_v2', norm_cfg=norm_cfg, **SMALL).double()
    ours.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert worst(maps(ours(x)), maps(plain(x))) < (1e-10, '')


def test_attention_learns_from_the_identity_start() -> None:
    ours = SEResNet(depth=18, attention='sepp_v2_residual', **SMALL)
    ours.load_state_dict(plain_network(18).state_dict(), strict=False)
    attention = ours.layer2[0].attention
    start = {key: value.clone() for key, value in attention.state_dict().items()}
    assert not start['fc2.weight'].any() and not start['fc2.bias'].any()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    x = torch.randn(2, 3, 64, 64)

    def step() -> None:
        optimizer.zero_grad()
        sum(out.square().mean() for out in ours.train()(x)).backward()
        optimizer.step()

    step()
    assert not torch.equal(attention.fc2.weight, start['fc2.weight'])
    assert torch.equal(attention.fc1.weight, start['fc1.weight'])
    step()
    assert not torch.equal(attention.fc1.weight, start['fc1.weight'])


def test_preserve_pretrained_off_keeps_the_random_start() -> None:
    plain = plain_network(18)
    ours = SEResNet(depth=18, attention='se', preserve_pretrained=False, **SMALL)
    fc2 = ours.layer1[0].attention.fc2.weight.clone()
    ours.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(ours.layer1[0].attention.fc2.weight, fc2) and fc2.any()
    assert torch.equal(ours.layer1[0].bn2.weight, plain.layer1[0].bn2.weight)


def test_alpha_without_an_identity_start_is_refused() -> None:
    ours = SEResNet(depth=18, attention={'residual': True, 'alpha': -2}, **SMALL)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=r'layer1\.0\.attention: alpha=-2 makes the gain .* zero'):
        ours.load_state_dict(plain_network(18).state_dict(), strict=False)
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_pretrained_init_of_a_file(tmp_path: Path, logged_warnings) -> None:
    """Through MMEngine's own Pretrained, from a detector's checkpoint, with a frozen stage."""
    plain = plain_network(18)
    weights = {f'module.backbone.{key}': value for key, value in plain.state_dict().items()}
    path = tmp_path / 'detector.pth'
    torch.save({'state_dict': weights | {'module.neck.weight': torch.ones(1)}, 'meta': {}}, path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    ours = SEResNet(18, attention='sepp_v2', frozen_stages=1, init_cfg=init_cfg, **SMALL)
    ours.init_weights()
    ours.train()
    assert not [w for w in logged_warnings if 'random start' in w]
    plain.eval()
    x = torch.randn(2, 3, 64, 64)
    exact, bars = network_bars(plain, x)
    assert not beyond(maps(ours.eval()(x)), exact, bars)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'depth': 50}, r'layer1\.0\.conv1\.weight is .* in the weights and .* in the backbone'),
        ({'depth': 34}, r'the backbone has no layer1\.2\.'),
        ({'base_channels': 32}, r'conv1\.weight is \(32, 3, 7, 7\) in the weights'),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / 'other.pth'
    torch.save(plain_network(**{'depth': 18, **change}).state_dict(), path)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    ours = SEResNet(18, attention='se', init_cfg=init_cfg, **SMALL)
    with pytest.raises(UserError, match=f'^{path}: {message}'):
        ours.init_weights()


def test_a_file_that_would_run_code(tmp_path: Path) -> None:
    """Named in one sentence, nothing in it runs, and the backbone stays as it was."""

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'mark'), 'w'))

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': plain_network(18).state_dict(), 'meta': Evil()}, path)
    ours = SEResNet(18, init_cfg={'type': 'Pretrained', 'checkpoint': str(path)}, **SMALL)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=f'^{path} carries .*open.* is refused'):
        ours.init_weights()
    assert not (tmp_path / 'mark').exists()
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_values_that_are_not_finite_are_refused() -> None:
    weights = plain_network(18).state_dict()
    weights['layer3.1.conv2.weight'][0, 0, 0, 0] = float('nan')
    with pytest.raises(UserError, match=r'^layer3\.1\.conv2\.weight has values that are not fin'):
        SEResNet(18, attention='se', **SMALL).load_state_dict(weights)


def test_fewer_stages_leave_the_rest_unused() -> None:
    plain = plain_network(18)
    ours = SEResNet(
        18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,), **SMALL
    )
    ours.load_state_dict({**plain.state_dict(), 'fc.weight': torch.ones(2, 2)}, strict=False)
    x = torch.randn(1, 3, 64, 64)
    plain.eval()
    assert torch.equal(ours.eval()(x)[0], plain(x)[2])


def test_hidden_width_of_other_packages() -> None:
    """They round the hidden width up to a multiple of 8; the sentence says what to set."""
    theirs = SEResNet(18, attention={'preset': 'se', 'min_hidden': 8}, **SMALL).state_dict()
    theirs = {key.replace('.attention.fc', '.se.fc'): value for key, value in theirs.items()}
    with pytest.raises(UserError, match=r'fc1\.weight is \(8, .*hidden width of 8'):
        SEResNet(18, attention='se', **SMALL).load_state_dict(theirs)
    ours = SEResNet(18, attention={'preset': 'se', 'min_hidden': 8}, **SMALL)
    ours.load_state_dict(theirs)
    key = 'layer4.1.attention.fc2.weight'
    assert torch.equal(ours.state_dict()[key], theirs['layer4.1.se.fc2.weight'])


def test_no_resnet_at_all() -> None:
    with pytest.raises(UserError, match=r'not the weights of a ResNet.*blocks\.0\.w'):
        SEResNet(18, **SMALL).load_state_dict({'blocks.0.w': torch.ones(1)})


def test_weights_of_torchvision_without_torchvision(monkeypatch):
    """By the names and the loader of MMEngine; what it gives comes from here."""
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    asked, plain = [], plain_network(18, base_channels=64)

    def download(url, **_):
        asked.append(url)
        return plain.state_dict()

    monkeypatch.setattr('mmengine.runner.checkpoint.load_url', download)
    init_cfg = {'type': 'Pretrained', 'checkpoint': 'torchvision://resnet18'}
    net = SEResNet(18, attention='sepp_v2', init_cfg=init_cfg)
    net.init_weights()
    assert asked == ['https://download.pytorch.org/models/resnet18-f37072fd.pth']
    net.eval()
    plain.eval()
    image = torch.randn(1, 3, 64, 64)
    exact, bars = network_bars(plain, image)
    assert not beyond(maps(net(image)), exact, bars)
    init_cfg['checkpoint'] = 'torchvision://resnet18.nothing'
    with pytest.raises(UserError, match='torchvision is not installed, and MMEngine knows no'):
        SEResNet(18, init_cfg=init_cfg).init_weights()
