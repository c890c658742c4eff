"""What mmdet 3.3.0 and mmseg 1.2.2 assert of the blocks and stages of their ResNets, in our words.

What does not hold for ours stands in test_peers_tests.py.
"""

from functools import partial
from typing import Any

import pytest
import torch
from mmcv.ops import DeformConv2dPack
from support.plugins import CONTEXT, DCN, GENERALIZED, NON_LOCAL, plugin
from torch import nn

from mmse.models import SEBasicBlock, SEBottleneck
from mmse.models.stages import make_stage

pytestmark = pytest.mark.usefixtures('single_thread')


@pytest.fixture(params=[None, 'sepp_v2'], ids=str)
def attention(request: pytest.FixtureRequest) -> Any:
    return request.param


def shape(net: nn.Module, channels: int, size: int = 14) -> tuple[int, ...]:
    return tuple(net(torch.randn(1, channels, size, size)).shape)


def stage(block: Any, inplanes: int, planes: int, attention: Any, **changes: Any) -> nn.Module:
    settings: dict[str, Any] = {
        'stride': 1,
        'avg_down': False,
        'conv_cfg': None,
        'norm_cfg': {'type': 'BN'},
        'drop_path_rates': [0.0] * 3,
        'block_args': {},
        'dilations': [1, 1, 1],
        **changes,
    }
    dilations = settings.pop('dilations')
    return make_stage(block, inplanes, planes, dilations, [attention] * 3, **settings)


@pytest.mark.parametrize('with_cp', [False, True])
def test_basic_block(with_cp: bool, attention: Any) -> None:
    block = SEBasicBlock(64, 64, with_cp=with_cp, attention=attention)
    assert block.with_cp is with_cp
    for conv in (block.conv1, block.conv2):
        assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (64, 64, (3, 3))
    assert shape(block, 64) == (1, 64, 14, 14)


@pytest.mark.parametrize('with_cp', [False, True])
def test_bottleneck(with_cp: bool, attention: Any) -> None:
    block = SEBottleneck(64, 16, with_cp=with_cp, attention=attention)
    assert block.with_cp is with_cp and shape(block, 64) == (1, 64, 14, 14)


def test_styles_of_a_bottleneck(attention: Any) -> None:
    for style, strides in (('pytorch', (1, 2)), ('caffe', (2, 1))):
        block = SEBottleneck(64, 64, stride=2, style=style, attention=attention)
        assert [block.conv1.stride, block.conv2.stride] == [(s, s) for s in strides]


def test_deformable_convolution(attention: Any) -> None:
    block = SEBottleneck(64, 64, dcn=dict(DCN), attention=attention)
    assert isinstance(block.conv2, DeformConv2dPack)
    SEBottleneck(64, 64, groups=32, base_width=4, dcn=dict(DCN), attention=attention)


@pytest.mark.parametrize(
    ('plugins', 'channels'),
    [
        ([plugin(CONTEXT, 3)], {'context_block': 64}),
        ([plugin(GENERALIZED, 2)], {'gen_attention_block': 16}),
        (
            [plugin(GENERALIZED, 2), plugin(NON_LOCAL, 2), plugin(CONTEXT, 3)],
            {'gen_attention_block': 16, 'nonlocal_block': 16, 'context_block': 64},
        ),
        (
            [
                plugin({**CONTEXT, 'postfix': k}, position)
                for k, position in ((1, 2), (2, 3), (3, 3))
            ],
            {'context_block1': 16, 'context_block2': 64, 'context_block3': 64},
        ),
    ],
)
def test_plugins_of_a_bottleneck(
    plugins: list[dict[str, Any]], channels: dict[str, int], attention: Any
) -> None:
    block = SEBottleneck(64, 16, plugins=plugins, attention=attention)
    assert {name: getattr(block, name).in_channels for name in channels} == channels
    assert shape(block, 64) == (1, 64, 14, 14)


def test_grouped_bottleneck(attention: Any) -> None:
    grouped = partial(SEBottleneck, groups=32, base_width=4, attention=attention)
    block = grouped(64, 64, stride=2)
    assert (block.conv2.stride, block.conv2.groups, block.conv2.out_channels) == ((2, 2), 32, 128)
    assert shape(grouped(64, 16), 64) == (1, 64, 14, 14)
    assert shape(grouped(64, 16, plugins=[plugin(GENERALIZED, 2)]), 64) == (1, 64, 14, 14)


def test_stages(attention: Any) -> None:
    plain = stage(SEBottleneck, 64, 16, attention)
    assert [(b.conv1.in_channels, b.conv1.out_channels) for b in plain] == [(64, 16)] * 3
    assert all(b.downsample is None for b in plain) and shape(plain, 64) == (1, 64, 14, 14)
    for stride, size in ((1, 14), (2, 7)):
        wider = stage(SEBottleneck, 64, 64, attention, stride=stride)
        projection = wider[0].downsample[0]
        assert (projection.out_channels, projection.stride) == (256, (stride, stride))
        assert wider[1].downsample is None and wider[2].downsample is None
        assert shape(wider, 64) == (1, 256, size, size)
    averaged = stage(SEBottleneck, 64, 64, attention, stride=2, avg_down=True)
    pool, projection = averaged[0].downsample[:2]
    assert isinstance(pool, nn.AvgPool2d) and projection.stride == (1, 1)
    assert projection.out_channels == 256 and shape(averaged, 64) == (1, 256, 7, 7)
