"""With ``attention=None`` the backbones are mmdet's and mmseg's own, to the bit."""

import copy
import importlib
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import mmse.models as ours_module

pytestmark = pytest.mark.usefixtures('single_thread')

SMALL = {'base_channels': 16, 'stem_channels': 16}
GN = {'type': 'GN', 'num_groups': 4, 'requires_grad': True}
SYNC_BN = {'type': 'SyncBN', 'requires_grad': True}
FROZEN_BN = {'type': 'BN', 'requires_grad': False}
ATTENTION_0010 = {'type': 'GeneralizedAttention', 'num_heads': 4, 'attention_type': '0010'}
CONTEXT = {'type': 'ContextBlock', 'ratio': 1 / 4}
PLUGINS = [
    {'cfg': CONTEXT, 'stages': (False, True, True, False), 'position': 'after_conv3'},
    {'cfg': ATTENTION_0010, 'stages': (False, False, True, True), 'position': 'after_conv2'},
    {'cfg': {**CONTEXT, 'postfix': '_b'}, 'position': 'after_conv3'},
    {'cfg': {**CONTEXT, 'postfix': '_c'}, 'position': 'after_conv1'},
]
ONE_PLUGIN = [{'cfg': CONTEXT, 'stages': (False, True, True, True), 'position': 'after_conv3'}]


def dcn(kind: str, stages: str = '0111', **changes: Any) -> dict[str, Any]:
    cfg = {'type': kind, 'deform_groups': 1, 'fallback_on_stride': False, **changes}
    return {'dcn': cfg, 'stage_with_dcn': tuple(c == '1' for c in stages)}


CASES: list[tuple[str, int, dict[str, Any]]] = [
    # mmdet
    ('mmdet.ResNet', 18, {'norm_eval': False, **SMALL}),
    ('mmdet.ResNet', 18, {'norm_eval': True, 'frozen_stages': 1, **SMALL}),
    ('mmdet.ResNet', 18, {'norm_eval': False, 'with_cp': True, **SMALL}),
    ('mmdet.ResNet', 18, {'norm_eval': False, 'deep_stem': True, 'avg_down': True, **SMALL}),
    ('mmdet.ResNet', 34, {'norm_eval': False, 'dilations': (1, 1, 2, 4), **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False}),
    ('mmdet.ResNet', 50, {'norm_eval': True, **SMALL}),
    ('mmdet.ResNet', 50, {'frozen_stages': 1, 'norm_cfg': FROZEN_BN, 'style': 'caffe', **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False, 'style': 'caffe', **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False, 'frozen_stages': 0, **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False, 'frozen_stages': 3, **SMALL}),
    ('mmdet.ResNet', 50, {'frozen_stages': 4, 'deep_stem': True, **SMALL}),
    ('mmdet.ResNet', 50, {'norm_cfg': GN, **SMALL}),
    ('mmdet.ResNet', 50, {'norm_cfg': SYNC_BN, 'norm_eval': False, **SMALL}),
    ('mmdet.ResNet', 50, {'conv_cfg': {'type': 'ConvWS'}, 'norm_cfg': GN, **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False, 'zero_init_residual': False, **SMALL}),
    ('mmdet.ResNet', 50, {'norm_eval': False, 'with_cp': True, **SMALL}),
    ('mmdet.ResNet', 50, {'in_channels': 5, 'out_indices': (1, 3), **SMALL}),
    ('mmdet.ResNet', 50, {'base_channels': 16}),
    ('mmdet.ResNet', 50, {'stem_channels': 24, 'base_channels': 16, 'norm_eval': False}),
    (
        'mmdet.ResNet',
        50,
        {
            'num_stages': 3,
            'strides': (1, 2, 1),
            'dilations': (1, 1, 2),
            'out_indices': (2,),
            'norm_eval': False,
            **SMALL,
        },
    ),
    ('mmdet.ResNet', 50, {**dcn('DCN'), 'norm_eval': False, **SMALL}),
    ('mmdet.ResNet', 50, {**dcn('DCNv2'), 'norm_eval': False, **SMALL}),
    ('mmdet.ResNet', 50, {**dcn('DCNv2', '0001', deform_groups=2), 'style': 'caffe', **SMALL}),
    ('mmdet.ResNet', 50, {**dcn('DCN', '0010', fallback_on_stride=True), **SMALL}),
    ('mmdet.ResNet', 50, {'plugins': PLUGINS, 'norm_eval': False, **SMALL}),
    ('mmdet.ResNet', 50, {'plugins': PLUGINS, 'with_cp': True, **dcn('DCN', '0001'), **SMALL}),
    ('mmdet.ResNet', 101, {'norm_eval': False, 'base_channels': 8}),
    ('mmdet.ResNetV1d', 18, {'norm_eval': False, **SMALL}),
    ('mmdet.ResNetV1d', 50, {'norm_eval': False, **SMALL}),
    ('mmdet.ResNetV1d', 50, {'norm_eval': True, 'frozen_stages': 1, **SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 32, 'base_width': 4, 'norm_eval': False, **SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 4, 'base_width': 32, 'frozen_stages': 1, **SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 1, 'base_width': 4, 'style': 'caffe', **SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 4, 'base_width': 8, **dcn('DCN'), **SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 4, 'base_width': 8, 'plugins': PLUGINS, **SMALL}),
    # mmseg
    ('mmseg.ResNet', 18, {'norm_eval': False, **SMALL}),
    ('mmseg.ResNet', 50, {'norm_eval': True, **SMALL}),
    ('mmseg.ResNet', 50, {'norm_eval': False, 'norm_cfg': SYNC_BN, **SMALL}),
    ('mmseg.ResNet', 50, {'norm_eval': False, 'plugins': ONE_PLUGIN, **SMALL}),
    ('mmseg.ResNet', 50, {**dcn('DCNv2'), 'norm_eval': False, **SMALL}),
    (
        'mmseg.ResNetV1c',
        50,
        {
            'strides': (1, 2, 1, 1),
            'dilations': (1, 1, 2, 4),
            'contract_dilation': True,
            'norm_eval': False,
            'norm_cfg': SYNC_BN,
            'style': 'pytorch',
            **SMALL,
        },
    ),
    (
        'mmseg.ResNetV1c',
        50,
        {
            'strides': (1, 2, 1, 1),
            'dilations': (1, 1, 2, 4),
            'multi_grid': (1, 2, 4),
            'norm_eval': False,
            **SMALL,
        },
    ),
    (
        'mmseg.ResNetV1c',
        18,
        {
            'strides': (1, 2, 1, 1),
            'dilations': (1, 1, 2, 4),
            'contract_dilation': True,
            'multi_grid': (1, 2),
            'norm_eval': False,
            **SMALL,
        },
    ),
    ('mmseg.ResNetV1d', 50, {'norm_eval': False, 'frozen_stages': 1, **SMALL}),
    ('mmseg.ResNetV1d', 34, {'norm_eval': True, 'with_cp': True, **SMALL}),
    ('mmseg.ResNeXt', 50, {'groups': 4, 'base_width': 8, 'norm_eval': False, **SMALL}),
    (
        'mmseg.ResNeXt',
        50,
        {
            'groups': 8,
            'base_width': 4,
            'dilations': (1, 1, 2, 4),
            'strides': (1, 2, 1, 1),
            'multi_grid': (1, 2, 4),
            'contract_dilation': True,
            'norm_eval': False,
            **SMALL,
        },
    ),
]


def case_id(value: Any) -> str:
    if isinstance(value, dict):
        hidden = {'base_channels', 'stem_channels'}
        return ','.join(k for k in value if k not in hidden) or 'plain'
    return str(value)


def pair(family: str, depth: int, settings: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The codebase's backbone and ours, with the same keywords."""
    package, name = family.split('.')
    pytest.importorskip(package)
    theirs = getattr(importlib.import_module(f'{package}.models.backbones'), name)
    ours = getattr(ours_module, f'SE{name}')
    return (
        theirs(depth=depth, **copy.deepcopy(settings)),
        ours(depth=depth, attention=None, **copy.deepcopy(settings)),
    )


def randomize(net: nn.Module) -> None:
    """Move every parameter and statistic away from a constant start."""
    with torch.no_grad():
        for param in net.parameters():
            if param.dim() < 2 or not param.any():
                param.add_(torch.randn_like(param) * 0.1)
        for name, buffer in net.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(std=0.1)
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 2)


def step(net: nn.Module, x: Tensor) -> dict[str, Any]:
    """One forward and backward pass; everything it leaves behind, by name."""
    x = x.clone().requires_grad_()
    outs = net(x)
    assert isinstance(outs, tuple)
    loss = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs)
    loss.backward()
    left = {f'out{i}': out.detach() for i, out in enumerate(outs)} | {'input.grad': x.grad}
    left |= {f'{n}.grad': p.grad for n, p in net.named_parameters()}
    left |= {n: b.clone() for n, b in net.named_buffers()}
    net.zero_grad()
    return left


def assert_bits(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        if value is None:
            assert got[name] is None, name
        else:
            assert torch.equal(got[name], value), name


def normalizers(net: nn.Module) -> dict[str, bool]:
    """The mode of every norm that has running statistics."""
    return {n: m.training for n, m in net.named_modules() if hasattr(m, 'running_mean')}


def same_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give both sides torch's recommended checkpointing.

    mmdet and mmseg leave ``use_reentrant`` to torch, whose default adds gradients up in another
    order: with it their own gradients differ in the last bits from those without ``with_cp``.
    """
    checkpoint = torch.utils.checkpoint.checkpoint

    def not_reentrant(function: Any, *args: Any, use_reentrant: bool | None = None) -> Any:
        return checkpoint(function, *args, use_reentrant=False)

    monkeypatch.setattr(torch.utils.checkpoint, 'checkpoint', not_reentrant)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('family', 'depth', 'settings'), CASES, ids=case_id)
def test_equal_to_the_bit(family, depth, settings, monkeypatch) -> None:
    theirs, ours = pair(family, depth, settings)
    randomize(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    same_checkpoint(monkeypatch)
    # Odd maps inside show the shortcut's pooling at the border; mmcv's DCN needs 3 pixels or more.
    size = (96, 104) if 'dcn' in settings else (72, 56)
    x = torch.randn(2, settings.get('in_channels', 3), *size)
    theirs.train()
    assert ours.train() is ours
    assert {n: p.requires_grad for n, p in ours.named_parameters()} == {
        n: p.requires_grad for n, p in theirs.named_parameters()
    }
    assert normalizers(ours) == normalizers(theirs)
    assert_bits(step(ours, x), step(theirs, x))
    theirs.eval()
    assert ours.eval() is ours
    assert_bits(step(ours, x), step(theirs, x))
    with torch.no_grad():
        for got, want in zip(ours(x), theirs(x), strict=True):
            assert torch.equal(got, want)


INITS: list[tuple[str, int, dict[str, Any]]] = [
    ('mmdet.ResNet', 18, {**SMALL}),
    ('mmdet.ResNet', 34, {'zero_init_residual': False, **SMALL}),
    ('mmdet.ResNet', 50, {**SMALL}),
    ('mmdet.ResNet', 50, {'zero_init_residual': False, 'norm_cfg': GN, **SMALL}),
    ('mmdet.ResNet', 50, {**dcn('DCNv2'), **SMALL}),
    ('mmdet.ResNet', 50, {'plugins': PLUGINS, **SMALL}),
    ('mmdet.ResNet', 50, {'init_cfg': {'type': 'Normal', 'layer': 'Conv2d', 'std': 0.02}, **SMALL}),
    ('mmdet.ResNetV1d', 50, {**SMALL}),
    ('mmdet.ResNeXt', 50, {'groups': 4, 'zero_init_residual': False, **SMALL}),
    ('mmseg.ResNet', 50, {**SMALL}),
    ('mmseg.ResNetV1c', 18, {**SMALL}),
    ('mmseg.ResNetV1d', 50, {'zero_init_residual': False, **SMALL}),
    ('mmseg.ResNeXt', 50, {'groups': 4, 'zero_init_residual': False, **SMALL}),
]


@pytest.mark.parametrize(('family', 'depth', 'settings'), INITS, ids=case_id)
def test_same_initialization(family: str, depth: int, settings: dict[str, Any]) -> None:
    theirs, ours = pair(family, depth, settings)
    # The random start of the constructors may differ: init_weights decides.
    ours.load_state_dict(theirs.state_dict())
    for net in (theirs, ours):
        torch.manual_seed(7)
        net.init_weights()
    assert_bits(dict(ours.state_dict()), dict(theirs.state_dict()))
    if settings.get('zero_init_residual', True) and 'init_cfg' not in settings:
        last = 'norm2' if depth < 50 else 'norm3'
        assert not getattr(ours.layer2[1], last).weight.any()


@pytest.mark.parametrize('family', ['mmdet.ResNet', 'mmseg.ResNet'])
def test_pretrained_is_turned_into_init_cfg(family: str) -> None:
    with pytest.warns(UserWarning, match='init_cfg'):
        theirs, ours = pair(family, 18, {'pretrained': 'torchvision://resnet18', **SMALL})
    assert ours.init_cfg == theirs.init_cfg
    with pytest.raises((AssertionError, ValueError)):
        ours_module.SEResNet(18, pretrained='a.pth', init_cfg={'type': 'Kaiming'}, **SMALL)


@pytest.mark.parametrize('family', ['mmdet.ResNet', 'mmseg.ResNet'])
@pytest.mark.parametrize('wrong', [{'plugins': ONE_PLUGIN}, dcn('DCN')], ids=['plugins', 'dcn'])
def test_basic_blocks_refuse_what_theirs_refuse(family: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        pair(family, 18, wrong)
    with pytest.raises((AssertionError, ValueError, NotImplementedError)):
        ours_module.SEResNet(18, **copy.deepcopy(wrong))


def test_the_dcn_config_is_left_alone() -> None:
    cfg = dcn('DCN', '0001')
    before = copy.deepcopy(cfg)
    ours_module.SEResNet(50, **cfg, **SMALL)
    assert cfg == before
