"""What mmdet 3.3.0 and mmseg 1.2.2 assert of their ResNet and ResNeXt holds for ours, in our words.

Their tests are not in their packages. Sizes are smaller here, and every check is made without and
with attention; those of blocks are in test_peers_tests_of_blocks.py. These assertions of theirs do
not hold, on purpose:

- AssertionError, KeyError and TypeError for wrong arguments: all are UserError, a ValueError whose
  sentence names the argument and what is allowed. A plugin that is not registered is still the
  KeyError of MMCV.
- ``ResLayer(block, inplanes, planes, num_blocks, ...)``: a stage is made by
  ``mmse.models.stages.make_stage``, which takes lists over blocks.
- ``ResLayer(downsample_first=False)`` and ``SimplifiedBasicBlock``: parts of the Hourglass network
  and of SCNet, not of a ResNet.

Not repeated is the download of torchvision's weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.plugins import CONTEXT, DCN, GENERALIZED, NON_LOCAL, plugin
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models import SEBasicBlock, SEBottleneck, SEResNet, SEResNetV1d, SEResNeXt
from mmse.utils.errors import UserError

pytestmark = pytest.mark.usefixtures('single_thread')


@pytest.fixture(params=[None, 'sepp_v2'], ids=str)
def attention(request: pytest.FixtureRequest) -> Any:
    return request.param


def blocks(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, SEBasicBlock | SEBottleneck)]


def norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, _BatchNorm | nn.GroupNorm)]


REFUSED: dict[str, Callable[[], object]] = {
    'basic block: dcn': partial(SEBasicBlock, 64, 64, dcn=DCN),
    'basic block: a plugin after conv3': partial(
        SEBasicBlock, 64, 64, plugins=[plugin(CONTEXT, 3)]
    ),
    'basic block: a plugin after conv2': partial(
        SEBasicBlock, 64, 64, plugins=[plugin(GENERALIZED, 2)]
    ),
    'bottleneck: style': partial(SEBottleneck, 64, 64, style='tensorflow'),
    'bottleneck: position': partial(SEBottleneck, 64, 16, plugins=[plugin(CONTEXT, 4)]),
    'bottleneck: the same plugin twice': partial(
        SEBottleneck, 64, 16, plugins=[plugin(CONTEXT, 3), plugin(CONTEXT, 3)]
    ),
    'bottleneck: dcn and conv_cfg': partial(
        SEBottleneck, 64, 64, dcn=DCN, conv_cfg={'type': 'Conv'}
    ),
    'grouped bottleneck: style': partial(
        SEBottleneck, 64, 64, groups=32, base_width=4, style='tensorflow'
    ),
    'grouped bottleneck: dcn and conv_cfg': partial(
        SEBottleneck, 64, 64, groups=32, base_width=4, dcn=DCN, conv_cfg={'type': 'Conv'}
    ),
    'depth': partial(SEResNet, 20),
    'no stage': partial(SEResNet, 50, num_stages=0),
    'five stages': partial(SEResNet, 50, num_stages=5),
    'five stages of basic blocks': partial(SEResNet, 18, num_stages=5),
    'stage_with_dcn of another length': partial(SEResNet, 50, dcn=DCN, stage_with_dcn=(True,)),
    'stages of a plugin of another length': partial(
        SEResNet, 50, plugins=[plugin(CONTEXT, 3, stages=(False, True, True))]
    ),
    'strides of another length': partial(
        SEResNet, 50, strides=(1,), dilations=(1, 1), num_stages=3
    ),
    'pretrained': partial(SEResNet, 50, pretrained=0),
    'style': partial(SEResNet, 50, style='tensorflow'),
    'depth of a ResNeXt': partial(SEResNeXt, 18),
}


@pytest.mark.parametrize('name', REFUSED)
def test_wrong_arguments_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        REFUSED[name]()


def test_a_plugin_that_is_not_registered_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        SEBottleneck(64, 16, plugins=[plugin({'type': 'WrongPlugin'}, 3)])


@pytest.mark.parametrize(
    ('settings', 'dilations'),
    [
        ({}, [2, 2, 2]),
        ({'contract_dilation': True}, [1, 2, 2]),
        ({'multi_grid': (1, 2, 4)}, [1, 2, 4]),
    ],
)
def test_dilations(settings: dict[str, Any], dilations: list[int], attention: Any) -> None:
    """mmseg's; there the stage is a ResLayer."""
    strides = {'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2)}
    net = SEResNet(50, base_channels=4, **strides, **settings, attention=attention)
    assert [block.conv2.dilation for block in net.layer4] == [(d, d) for d in dilations]
    assert tuple(net(torch.randn(1, 3, 64, 64))[3].shape) == (1, 128, 4, 4)


@pytest.mark.parametrize(
    ('settings', 'channels'),
    [
        ({}, 64),
        ({'base_channels': 3}, 3),
        ({'stem_channels': 3}, 3),
        ({'stem_channels': 3, 'base_channels': 2}, 3),
    ],
)
def test_channels_of_the_stem(settings: dict[str, int], channels: int, attention: Any) -> None:
    net = SEResNet(50, **settings, attention=attention)
    found = {net.stem_channels, net.conv1.out_channels, net.norm1.num_features}
    assert found | {net.layer1[0].conv1.in_channels} == {channels}


def test_channels_of_a_deep_stem(attention: Any) -> None:
    net = SEResNetV1d(depth=50, stem_channels=6, attention=attention)
    widths = [net.stem[i].out_channels for i in (0, 3, 6)]
    assert widths == [net.stem[i].num_features for i in (1, 4, 7)] == [3, 3, 6]
    assert len(net.stem) == 9 and net.layer1[0].conv1.in_channels == 6


@pytest.mark.parametrize('kind', [SEResNet, SEResNetV1d])
def test_frozen_and_evaluated_norms(kind: type[SEResNet], attention: Any) -> None:
    net = kind(depth=50, norm_eval=True, base_channels=2, attention=attention)
    assert not any(norm.training for norm in norms(net.train()))
    net = kind(depth=50, frozen_stages=1, norm_eval=False, base_channels=2, attention=attention)
    net.init_weights()
    net.train()
    stem = [net.stem] if kind is SEResNetV1d else [net.conv1, net.norm1]
    for module in (*stem, net.layer1):
        assert not any(param.requires_grad for param in module.parameters())
        assert not any(norm.training for norm in norms(module))
    assert all(norm.training for norm in norms(net.layer2))


BN50 = {'depth': 50, 'base_channels': 4}


@pytest.mark.parametrize(
    ('kind', 'settings', 'widths'),
    [
        (SEResNet, {'depth': 18}, [64, 128, 256, 512]),
        (SEResNet, BN50, [16, 32, 64, 128]),
        (SEResNet, {**BN50, 'out_indices': (0, 1, 2)}, [16, 32, 64]),
        (SEResNet, {**BN50, 'with_cp': True}, [16, 32, 64, 128]),
        (SEResNet, {**BN50, 'norm_cfg': {'type': 'GN', 'num_groups': 2}}, [16, 32, 64, 128]),
        (SEResNet, {**BN50, 'zero_init_residual': True}, [16, 32, 64, 128]),
        (SEResNetV1d, BN50, [16, 32, 64, 128]),
        (SEResNeXt, {'depth': 50, 'groups': 32, 'base_width': 4}, [256, 512, 1024, 2048]),
    ],
)
def test_feature_maps(
    kind: type[SEResNet], settings: dict[str, Any], widths: list[int], attention: Any
) -> None:
    net = kind(**settings, attention=attention)
    net.init_weights()
    maps = net.train()(torch.randn(1, 3, 32, 32))
    sizes = (8, 4, 2, 1)
    assert [tuple(m.shape) for m in maps] == [
        (1, c, s, s) for c, s in zip(widths, sizes, strict=False)
    ]
    norm = nn.GroupNorm if 'norm_cfg' in settings else _BatchNorm
    assert all(isinstance(module, norm) for module in norms(net))
    assert all(block.with_cp is settings.get('with_cp', False) for block in blocks(net))
    assert all(block.conv2.groups == settings.get('groups', 1) for block in blocks(net))


@pytest.mark.parametrize('depth', [18, 50])
def test_branches_start_at_zero(depth: int, attention: Any) -> None:
    net = SEResNet(depth, zero_init_residual=True, base_channels=4, attention=attention)
    net.init_weights()
    for block in blocks(net):
        last = block.norm(block.last)
        assert not last.weight.any() and not last.bias.any()


def test_plugins_of_stages(attention: Any) -> None:
    later, middle = (False, True, True, True), (False, True, True, False)
    net = SEResNet(
        50,
        base_channels=8,
        attention=attention,
        plugins=[
            plugin(GENERALIZED, 2, stages=later),
            plugin(NON_LOCAL, 2),
            plugin(CONTEXT, 3, stages=middle),
        ],
    )
    for index, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4)):
        for block in layer:
            assert block.nonlocal_block.in_channels == 8 * 2**index
            assert hasattr(block, 'gen_attention_block') is later[index]
            assert hasattr(block, 'context_block') is middle[index]
            if middle[index]:
                assert block.gen_attention_block.in_channels == 8 * 2**index
                assert block.context_block.in_channels == 32 * 2**index
    maps = net.train()(torch.randn(1, 3, 32, 32))
    assert [m.shape[1] for m in maps] == [32, 64, 128, 256]


def test_two_plugins_of_a_kind(attention: Any) -> None:
    middle = (False, True, True, False)
    context = [plugin({**CONTEXT, 'postfix': k}, 3, stages=middle) for k in (1, 2)]
    net = SEResNet(50, base_channels=8, plugins=context, attention=attention)
    for index, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4)):
        for block in layer:
            found = {n: m.in_channels for n, m in block.named_children() if 'context' in n}
            expected = {f'context_block{k}': 32 * 2**index for k in (1, 2)}
            assert found == (expected if middle[index] else {})
    assert [m.shape[1] for m in net.train()(torch.randn(1, 3, 32, 32))] == [32, 64, 128, 256]


def test_a_name_of_torchvisions_weights_is_taken(attention: Any) -> None:
    net = SEResNet(50, pretrained='torchvision://resnet50', attention=attention)
    assert net.init_cfg == {'type': 'Pretrained', 'checkpoint': 'torchvision://resnet50'}
    assert not any(norm.training for norm in norms(net.train()))
