"""The settings of an attention go wherever its weights go, whoever renames and copies them."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, PretrainedInit
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, weights_to_cpu
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmse.checkpoints.convert import convert_file
from mmse.models import ChannelAttention, SEResNet
from mmse.models.meaning import read_record, record
from mmse.models.settings import PRESETS, AttentionSettings
from mmse.utils.errors import UserError

SMALL = {'depth': 18, 'base_channels': 8}
Weights = dict[str, Tensor]
# The same shapes and parameters, another function.
OTHER = {'preset': 'se', 'squeeze': 'max'}


class Host(nn.Module):
    """A model with a backbone, as in mmdet and mmseg."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.backbone = SEResNet(attention=attention, **SMALL)


def whole(host: Host) -> Weights:
    return get_state_dict(host)


def bare(host: Host) -> Weights:
    return host.backbone.state_dict()


def comprehended(host: Host) -> Weights:
    return {k[9:]: v.clone() for k, v in whole(host).items() if k.startswith('backbone.')}


def in_parallel(host: Host) -> Weights:
    return {f'module.{key}': value for key, value in whole(host).items()}


def of_mmengines_average(host: Host) -> Weights:
    average = ExponentialMovingAverage(host)
    average.update_parameters(host)
    return average.state_dict()


def of_torchs_average(host: Host) -> Weights:
    return torch.optim.swa_utils.AveragedModel(host.backbone).state_dict()


def averaged_by_hand(host: Host) -> Weights:
    both = [copy.deepcopy(whole(host)) for _ in range(5)]
    return {key: sum(weights[key] for weights in both) / 5 for key in both[0]}


def halved(host: Host) -> Weights:
    return {key: value.half() for key, value in weights_to_cpu(whole(host)).items()}


def bare_init(path: Path, host: Host) -> None:
    host.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    host.backbone.init_weights()


def prefixed_init(path: Path, host: Host) -> None:
    host.backbone.init_cfg = {
        'type': 'Pretrained',
        'checkpoint': str(path),
        'prefix': 'backbone.',
    }
    host.backbone.init_weights()


def initializer(path: Path, host: Host) -> None:
    PretrainedInit(checkpoint=str(path), prefix='module.backbone')(host.backbone)


def mmengine(path: Path, host: Host) -> None:
    load_checkpoint(host, str(path))


def revised(path: Path, host: Host) -> None:
    load_checkpoint(
        host.backbone, str(path), revise_keys=[(r'^module\.', ''), (r'^backbone\.', '')]
    )


def by_hand(path: Path, host: Host) -> None:
    host.backbone.load_state_dict(torch.load(path, weights_only=True)['state_dict'])


def of_the_average(path: Path, host: Host) -> None:
    averaged = torch.load(path, weights_only=True)['state_dict']
    host.load_state_dict(
        {k.removeprefix('module.'): v for k, v in averaged.items() if k != 'steps'}
    )


WAYS: list[tuple[Callable[[Host], Weights], Callable[[Path, Host], None]]] = [
    (whole, mmengine),
    (whole, bare_init),
    (whole, prefixed_init),
    (whole, revised),
    (in_parallel, mmengine),
    (in_parallel, revised),
    (in_parallel, initializer),
    (bare, bare_init),
    (bare, by_hand),
    (comprehended, bare_init),
    (comprehended, by_hand),
    (of_mmengines_average, mmengine),
    (of_mmengines_average, initializer),
    (of_mmengines_average, of_the_average),
    (of_torchs_average, bare_init),
    (averaged_by_hand, mmengine),
    (halved, prefixed_init),
]


@pytest.mark.parametrize(('saved', 'loaded'), WAYS, ids=lambda way: way.__name__)
def test_weights_keep_their_meaning(saved: Callable, loaded: Callable, tmp_path: Path) -> None:
    torch.manual_seed(1)
    host = Host('se')
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': OrderedDict(saved(host))}, path)
    torch.manual_seed(2)
    same, other = Host('se'), Host(OTHER)
    loaded(path, same)
    for key, value in whole(same).items():
        torch.testing.assert_close(value, whole(host)[key], rtol=1e-3, atol=1e-3, msg=key)
    before = copy.deepcopy(whole(other))
    with pytest.raises(UserError, match=r'another attention \(avg, .* than .* \(max, '):
        loaded(path, other)
    if not loaded.__name__.endswith('init'):  # MMEngine draws what is not loaded first
        assert all(torch.equal(value, before[key]) for key, value in whole(other).items())


def test_safetensors(tmp_path: Path) -> None:
    path = str(tmp_path / 'weights.safetensors')
    save_file(bare(Host('se')), path)
    Host('se').backbone.load_state_dict(load_file(path))
    with pytest.raises(UserError, match='another attention'):
        Host(OTHER).backbone.load_state_dict(load_file(path))


@pytest.mark.parametrize('attention', [{'preset': 'se', 'min_hidden': 8}, OTHER])
def test_converted_weights(attention: Any, tmp_path: Path) -> None:
    """Those of other packages are known to be ``se``; ours say it without a word of the user."""
    net = SEResNet(50, base_channels=16, attention=attention)
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    if attention == OTHER:
        with pytest.raises(UserError, match=r"has the hidden width|only the preset 'se'"):
            convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth', 'timm')
        return
    convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth', 'timm')
    convert_file(tmp_path / 'b.pth', tmp_path / 'c.pth', 'mmse')
    back = torch.load(tmp_path / 'c.pth')['state_dict']
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(value, back[key]) for key, value in net.state_dict().items())


def test_attention_on_its_own() -> None:
    weights = dict(ChannelAttention(32, preset='se').state_dict())
    ChannelAttention(32, preset='se').load_state_dict(weights)
    for unreadable in (torch.zeros(3), torch.tensor([91, 93]), torch.full((2,), float('nan'))):
        ChannelAttention(32, **OTHER).load_state_dict({**weights, '_extra_state': unreadable})
    with pytest.raises(UserError, match='another attention'):
        ChannelAttention(32, **OTHER).load_state_dict(weights)
    del weights['_extra_state']
    ChannelAttention(32, **OTHER).load_state_dict(weights)


def test_settings_of_a_later_version() -> None:
    later = torch.tensor(list(b'{"squeeze": "median", "heads": 4}'))
    weights = {**ChannelAttention(32).state_dict(), '_extra_state': later}
    with pytest.raises(UserError, match=r'does not know \(heads=4, squeeze=\'median\'\)'):
        ChannelAttention(32).load_state_dict(weights)


@pytest.mark.parametrize('preset', PRESETS)
def test_what_is_read_is_what_was_written(preset: str) -> None:
    settings = AttentionSettings(**{**PRESETS[preset], 'temperature': 0.1})
    written = record(settings)
    assert AttentionSettings(**read_record(written)) == settings
    assert read_record(written.bfloat16()) == read_record(written) == settings.to_dict()
    assert read_record(written.to('meta')) is None


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 6e4])
def test_values_that_are_not_finite(value: float) -> None:
    """Large ones are, though their sum in half precision is not."""
    weights = {key: tensor.half() for key, tensor in bare(Host('se')).items()}
    weights['layer1.0.conv1.weight'][0, :2] = value
    net = Host('se').backbone.half()
    if value == 6e4:
        assert not weights['layer1.0.conv1.weight'].sum().isfinite()
        net.load_state_dict(weights)
        return
    with pytest.raises(UserError, match=r'layer1\.0\.conv1\.weight has values that are not finite'):
        net.load_state_dict(weights)
