"""Weights mean what they say: settings are saved with them and compared when they are loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner.checkpoint import (
    get_state_dict,
    load_checkpoint,
    save_checkpoint,
    weights_to_cpu,
)
from torch import Tensor, nn

from mmse.checkpoints.belonging import check_checkpoint
from mmse.models import ChannelAttention, SEResNet, SEResNeXt
from mmse.models.loading import match
from mmse.utils.errors import UserError

SMALL = {'depth': 18, 'base_channels': 8, 'norm_eval': False}


def trained(attention: Any, **changes: Any) -> SEResNet:
    """A network whose attention is at no start."""
    net = SEResNet(attention=attention, **{**SMALL, **changes})
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def without(part: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if part not in key}


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f'{prefix}{key}': value for key, value in weights.items()}


def outputs(net: SEResNet) -> list[Tensor]:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return list(net.eval()(x))


def assert_same_function(one: SEResNet, other: SEResNet) -> None:
    for got, want in zip(outputs(one), outputs(other), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


OTHERS = [
    ('se', 'sepp_v2_residual'),
    ('se', {'preset': 'se', 'gate': 'hardsigmoid'}),
    ('se', {'preset': 'se', 'temperature': 3.0}),
    ('se', {'preset': 'se', 'act': 'silu'}),
    ('se', 'se_max'),
    ('se', 'se_avgmax'),
    ('sepp_v2', 'sepp_v2_residual'),
    ({'residual': True}, {'residual': True, 'alpha': 3.0}),
    ({'residual': True, 'alpha': 0.5}, {'residual': True, 'learnable_alpha': True}),
    (['se', None, 'se', 'se'], ['se', None, 'se', 'se_max']),
]


@pytest.mark.parametrize(('theirs', 'ours'), OTHERS, ids=str)
def test_weights_of_another_attention_are_refused(theirs: Any, ours: Any) -> None:
    weights = trained(theirs).state_dict()
    net = SEResNet(attention=ours, **SMALL)
    with pytest.raises(UserError, match=r'layer\d\.0\.attention.*of another attention'):
        net.load_state_dict(weights, strict=False)


@pytest.mark.parametrize(('theirs', 'ours'), OTHERS, ids=str)
def test_or_start_at_the_identity_if_the_user_says_so(
    theirs: Any, ours: Any, logged_warnings: list[str]
) -> None:
    plain = trained(None)
    weights = trained(theirs).state_dict()
    weights.update(plain.state_dict())
    net = SEResNet(attention=ours, restart_attention=True, **SMALL)
    different = {
        name
        for (name, block), other in zip(
            net.attention_blocks(), trained(theirs).attention_blocks(), strict=True
        )
        if block.attention.settings != other[1].attention.settings
    }
    found = net.load_state_dict(weights, strict=False)
    assert any('of another attention' in text for text in logged_warnings)
    missing = {key.partition('.attention')[0] for key in found.missing_keys}
    assert missing == different
    if len(different) == 8:
        assert_same_function(net, plain)


@pytest.mark.parametrize(
    ('theirs', 'ours'),
    [
        ('sepp', 'se_gated'),
        ({'residual': True, 'alpha': 1}, {'residual': True, 'learnable_alpha': True}),
        ({'temperature': 2.0}, {'temperature': 2.0, 'learnable_temperature': True}),
    ],
    ids=str,
)
def test_what_computes_the_same_is_taken(theirs: Any, ours: Any) -> None:
    source = trained(theirs)
    net = SEResNet(attention=ours, **SMALL)
    weights = source.state_dict()
    learned = {k for k in net.state_dict() if k.endswith(('alpha', 'raw_temperature'))}
    if learned:
        # A scalar that is learned from here on starts at the constant that it was.
        weights.update({k: v for k, v in net.state_dict().items() if k in learned})
    net.load_state_dict(weights)
    assert_same_function(net, source)


def test_learned_scalars_go_on_wherever_they_started() -> None:
    source = trained({'residual': True, 'learnable_alpha': True, 'alpha': 0.5})
    net = SEResNet(attention={'residual': True, 'learnable_alpha': True, 'alpha': 2}, **SMALL)
    net.load_state_dict(source.state_dict())
    assert_same_function(net, source)


class Host(nn.Module):
    """A model with a backbone, as in mmdet and mmseg."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.backbone = SEResNet(attention=attention, **SMALL)


def test_settings_survive_mmengines_checkpoints(tmp_path: Path) -> None:
    host = Host('se')
    path = tmp_path / 'host.pth'
    save_checkpoint({'state_dict': weights_to_cpu(get_state_dict(host))}, str(path))
    load_checkpoint(Host('se'), str(path))
    for whole in (True, False):
        check_checkpoint(str(path), Host('se'), whole)
        with pytest.raises(UserError, match='another attention'):
            check_checkpoint(str(path), Host({'preset': 'se', 'temperature': 3.0}), whole)
    with pytest.raises(UserError, match='another attention'):
        load_checkpoint(Host({'preset': 'se', 'gate': 'hardsigmoid'}), str(path))


def test_settings_in_the_config_of_an_older_checkpoint(tmp_path: Path) -> None:
    weights = prefixed('backbone.', without('_extra_state', trained('se').state_dict()))
    cfg = "model = dict(backbone=dict(type='mmse.SEResNet', depth=18, attention='se'))\n"
    torch.save({'state_dict': weights, 'meta': {'cfg': cfg}}, tmp_path / 'old.pth')
    for attention, fits in (('se', True), ('se_max', False)):
        model = nn.Module()
        model.backbone = SEResNet(attention=attention, **SMALL)
        if fits:
            check_checkpoint(str(tmp_path / 'old.pth'), model, whole=False)
        else:
            with pytest.raises(UserError, match='another attention'):
                check_checkpoint(str(tmp_path / 'old.pth'), model, whole=False)


def test_without_a_record_other_parameters_tell() -> None:
    weights = without('_extra_state', trained('se_avgmax').state_dict())
    with pytest.raises(UserError, match=r'no layer1\.0\.attention\.fusion_logits.*another'):
        SEResNet(attention={'preset': 'se_avgmax', 'fusion': 'softmax'}, **SMALL).load_state_dict(
            weights
        )
    net = SEResNet(attention='se', **SMALL)  # nothing tells them apart, which the log says
    net.load_state_dict(weights)
    assert 'do not say which attention 8 blocks had' in match(net, weights)[1].table()


def test_weights_as_convolutions_are_taken() -> None:
    net = trained('sepp_v2')
    weights = {
        key: value[:, :, None, None] if key.endswith(('fc1.weight', 'fc2.weight')) else value
        for key, value in net.state_dict().items()
    }
    other = SEResNet(attention='sepp_v2', **SMALL)
    other.load_state_dict(weights)
    assert_same_function(other, net)
    alone = ChannelAttention(8, preset='sepp_v2')
    prefix = 'layer1.0.attention.'
    alone.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if prefix in k})
    assert torch.equal(alone.fc1.weight, net.layer1[0].attention.fc1.weight)


def test_missing_and_unexpected_keys_are_told_as_torch_tells_them() -> None:
    net = SEResNet(attention='sepp_v2_residual', **SMALL)
    plain = {**trained(None).state_dict(), 'fc.weight': torch.zeros(10, 64)}
    found = net.load_state_dict(plain, strict=False)
    assert set(found.missing_keys) == {key for key in net.state_dict() if '.attention.' in key}
    assert found.unexpected_keys == ['fc.weight']
    with pytest.raises(RuntimeError, match=r'Missing key.*attention') as error:
        net.load_state_dict(plain)
    assert 'Unexpected key(s) in state_dict: "fc.weight"' in str(error.value)
    assert 'layer1.0.conv1' not in str(error.value)


@pytest.mark.parametrize('part', ['.attention.', 'layer4', 'layer2.0.bn', 'layer1.0.attention.fc2'])
def test_a_part_is_loaded(part: str) -> None:
    source = trained('sepp_v2_residual')
    net = trained('sepp_v2_residual')
    before = {key: value.clone() for key, value in net.state_dict().items()}
    weights = {key: value for key, value in source.state_dict().items() if part in key}
    found = net.load_state_dict(weights, strict=False)
    # torch counts no counter of a norm as missing.
    assert set(found.missing_keys) == {
        key for key in before if key not in weights and 'num_batches' not in key
    }
    for key, value in net.state_dict().items():
        if key in weights:
            assert torch.equal(value, weights[key]), key
        else:
            assert torch.equal(value, before[key]), key


def test_meta_device_and_assign() -> None:
    source, plain = trained('se'), trained(None)
    with torch.device('meta'):
        net, fresh = (SEResNet(attention='se', **SMALL) for _ in range(2))
    net.load_state_dict(source.state_dict(), assign=True)
    assert_same_function(net, source)
    fresh.load_state_dict(plain.state_dict(), strict=False, assign=True)
    for _, block in fresh.attention_blocks():
        assert not block.attention.fc2.weight.is_meta and not block.attention.fc2.weight.any()
        block.attention.fc1.to_empty(device='cpu').reset_parameters()
    assert_same_function(fresh, plain)


class FrozenBatchNorm2d(nn.Module):
    """A norm without counters, as in torchvision's and DETR's."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            self.register_buffer(name, torch.ones(channels))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        state_dict.pop(f'{prefix}num_batches_tracked', None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


@pytest.mark.parametrize('attention', [None, 'se'])
def test_frozen_norms_take_plain_weights(
    attention: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmengine.registry import MODELS

    monkeypatch.setitem(MODELS._module_dict, 'FrozenBN', FrozenBatchNorm2d)
    plain = trained(None)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'plain.pth')}
    for norm in ({'type': 'FrozenBN'}, {'type': 'BN', 'track_running_stats': False}):
        net = SEResNet(attention=attention, norm_cfg=norm, init_cfg=init_cfg, **SMALL)
        net.init_weights()
        if norm['type'] == 'FrozenBN':
            assert_same_function(net, plain)
        assert torch.equal(net.layer1[0].bn1.weight, plain.layer1[0].bn1.weight)


@pytest.mark.parametrize('channels', [1, 5])
def test_other_channels_of_the_image(
    channels: int, tmp_path: Path, logged_warnings: list[str]
) -> None:
    plain = trained(None)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'plain.pth')}
    net = SEResNet(attention='se', in_channels=channels, init_cfg=init_cfg, **SMALL)
    start = net.conv1.weight.clone()
    net.init_weights()
    assert torch.equal(net.conv1.weight, start) and start.shape[1] == channels
    for name, value in plain.state_dict().items():
        if name != 'conv1.weight' and '.bn2.' not in name:
            assert torch.equal(net.state_dict()[name], value), name
    sentence = f'conv1.weight is for images of 3 channels, those of the backbone have {channels}'
    assert any(sentence in text for text in logged_warnings)


@pytest.mark.parametrize(
    ('theirs', 'ours', 'sentence'),
    [
        ({'depth': 34}, {}, r'has no layer1\.2\.conv1\.weight; set depth and widths'),
        ({}, {'depth': 34}, r'have no layer1\.2\.conv1\.weight; set depth and widths'),
        ({'base_channels': 16}, {}, r'conv1\.weight is \(16.*set depth and widths'),
        ({'deep_stem': True}, {}, r'have no conv1\.weight: they are of a ResNet with a deep stem'),
        ({}, {'deep_stem': True}, r'have no stem\.0\.weight: they are of a ResNet with a plain'),
        ('running_', {}, r'have no bn1\.running_mean: their norms keep no running statistics'),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_for_what_it_is(
    theirs: Any, ours: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    if isinstance(theirs, str):
        weights = without(theirs, trained(None).state_dict())
    else:
        weights = trained(None, **theirs).state_dict()
    torch.save(weights, tmp_path / 'w.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'w.pth')}
    net = SEResNet(**{**SMALL, **ours}, attention='se', init_cfg=init_cfg)
    with pytest.raises(UserError, match=sentence):
        net.init_weights()


def test_groups_are_named() -> None:
    weights = SEResNeXt(50, groups=4, base_width=4, base_channels=8).state_dict()
    with pytest.raises(UserError, match='set groups and base_width'):
        SEResNeXt(50, groups=2, base_width=8, base_channels=8).load_state_dict(weights)
