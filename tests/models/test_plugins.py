"""``mmse.ChannelAttention`` as ``plugins=`` of mmdet's and mmseg's own backbones, in their configs.

The reference is the same network without plugins, into which hooks put the documented formula.
"""

import copy
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

pytestmark = [pytest.mark.usefixtures('single_thread'), pytest.mark.filterwarnings('ignore')]

MASK = (False, True, False, True)
SETTINGS = {'squeeze': 'avg+max', 'residual': True, 'learnable_alpha': True, 'reduction': 8}
MMDET = {
    'ResNet': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'RegNet': 'mmdet::regnet/retinanet_regnetx-800MF_fpn_1x_coco.py',
    'ResNeXt': 'mmdet::retinanet/retinanet_x101-32x4d_fpn_1x_coco.py',
}
MMSEG = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
# Narrow, and with all stages trained: gradients of every block are compared.
TRAINED = {'frozen_stages': -1, 'init_cfg': None}
NARROW = {'base_channels': 16, 'depth': 50, **TRAINED}


def plugin(position: str, postfix: str = '', mask: tuple[bool, ...] | None = MASK) -> dict:
    """An entry of ``plugins`` as a config holds it."""
    entry = {
        'cfg': {'type': 'mmse.ChannelAttention', 'postfix': postfix, **SETTINGS},
        'position': position,
    }
    return entry if mask is None else {**entry, 'stages': mask}


def backbone(cfg: Config, **changes: Any) -> nn.Module:
    """The backbone of a config's model, in double precision and evaluation mode."""
    cfg = copy.deepcopy(cfg)
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.norm_cfg = {
        **(cfg.model.backbone.get('norm_cfg') or cfg.model.get('norm_cfg') or {}),
        'type': 'BN',
    }
    cfg.merge_from_dict({f'model.backbone.{key}': value for key, value in changes.items()})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        net = MODELS.build(cfg.model.backbone).double()
    net.eval()  # mmdet's returns None
    return net


def twins(
    cfg: Config, plugins: list[dict], **changes: Any
) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A network with plugins, the same one without, and the plugins' parameters as copies."""
    ours, plain = backbone(cfg, plugins=plugins, **changes), backbone(cfg, **changes)
    with torch.no_grad():
        for name, param in ours.named_parameters():
            if param.dim() < 2 or 'attention' in name:
                param.add_(torch.randn_like(param) * 0.2)
    shared = {k: v for k, v in ours.state_dict().items() if k in plain.state_dict()}
    plain.load_state_dict(shared)
    new = {n: p for n, p in ours.named_parameters() if n not in dict(plain.named_parameters())}
    return ours, plain, {n: p.detach().clone().requires_grad_() for n, p in new.items()}


def put_formula(plain: nn.Module, params: dict[str, Tensor], names, position: str, formula) -> None:
    """Let the formula work where the named plugins are, in the order of ``names``."""
    for place in dict.fromkeys(n.split('.channel_attention')[0] for n in params):
        block = plain.get_submodule(place)

        def attend(x: Tensor, place: str = place) -> Tensor:
            for name in names:
                start = f'{place}.{name}.'
                own = {n.removeprefix(start): p for n, p in params.items() if n.startswith(start)}
                x = formula(x, own)
            return x

        if position == 'after_conv3':
            block.norm3.register_forward_hook(lambda m, args, out, f=attend: f(out))
        else:
            conv = block.conv2 if position == 'after_conv1' else block.conv3
            conv.register_forward_pre_hook(lambda m, args, f=attend: f(args[0]))


def assert_equal_passes(ours: nn.Module, plain: nn.Module, params: dict[str, Tensor]) -> None:
    """Features, and gradients of the input and of every parameter."""
    x = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    grads, outs = [], []
    for net, new in ((ours, {}), (plain, params)):
        given = x.clone().requires_grad_()
        outs.append(net(given))
        sum((o * torch.linspace(-1, 2, o.numel()).view_as(o)).sum() for o in outs[-1]).backward()
        named = {**dict(net.named_parameters()), **new}
        grads.append({'input': given.grad, **{n: p.grad for n, p in named.items()}})
    for got, want in zip(*outs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    assert grads[0].keys() == grads[1].keys()
    scale = max(g.abs().max() for g in grads[1].values() if g is not None)
    for name, want in grads[1].items():
        got = grads[0][name]
        assert (got is None) == (want is None), name
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12 * scale.item(), msg=name)


def masked_blocks(net: nn.Module) -> set[str]:
    stages = [stage for stage, wanted in zip(net.res_layers, MASK, strict=True) if wanted]
    return {f'{s}.{i}' for s in stages for i in range(len(getattr(net, s)))}


@pytest.fixture
def formula(attention_formula, full_settings):
    return lambda x, params: attention_formula(x, params, full_settings(**SETTINGS))


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
@pytest.mark.parametrize('kind', MMDET)
def test_mmdet(kind: str, position: str, formula) -> None:
    cfg = get_config(MMDET[kind])
    assert cfg.model.backbone.type == kind
    changes = TRAINED if kind == 'RegNet' else NARROW
    ours, plain, params = twins(cfg, [plugin(position)], **changes)
    assert {n.split('.channel_attention')[0] for n in params} == masked_blocks(ours)
    put_formula(plain, params, ['channel_attention'], position, formula)
    assert_equal_passes(ours, plain, params)


# mmseg has no RegNet. Its ResNeXt builds plugins after conv1 and conv2 for the width of a ResNet.
@pytest.mark.parametrize(
    ('kind', 'position'),
    [
        ('ResNetV1c', 'after_conv1'),
        ('ResNetV1c', 'after_conv2'),
        ('ResNetV1c', 'after_conv3'),
        ('ResNet', 'after_conv3'),
        ('ResNeXt', 'after_conv3'),
    ],
)
def test_mmseg(kind: str, position: str, formula) -> None:
    more = {'groups': 4, 'base_width': 8} if kind == 'ResNeXt' else {}
    ours, plain, params = twins(
        get_config(MMSEG), [plugin(position)], type=kind, stem_channels=16, **more, **NARROW
    )
    assert {n.split('.channel_attention')[0] for n in params} == masked_blocks(ours)
    put_formula(plain, params, ['channel_attention'], position, formula)
    assert_equal_passes(ours, plain, params)


@pytest.mark.parametrize(
    ('config', 'working'),
    [
        (MMDET['ResNet'], ['channel_attention_a', 'channel_attention_b']),
        # mmseg hands every plugin the block's own map and keeps what the last one gives.
        (MMSEG, ['channel_attention_b']),
    ],
    ids=['mmdet', 'mmseg'],
)
def test_two_at_one_position(config: str, working: list[str], formula) -> None:
    plugins = [plugin('after_conv3', '_a'), plugin('after_conv3', '_b', None)]
    ours, plain, params = twins(get_config(config), plugins, **NARROW, stem_channels=16)
    first = {n.split('.channel_attention')[0] for n in params if '_a.' in n}
    second = {n.split('.channel_attention')[0] for n in params if '_b.' in n}
    assert first == masked_blocks(ours) < second and len(second) == sum(ours.stage_blocks)
    for block in second:
        names = [name for name in working if hasattr(ours.get_submodule(block), name)]
        own = {n: p for n, p in params.items() if n.startswith(f'{block}.')}
        put_formula(plain, own, names, 'after_conv3', formula)
    assert_equal_passes(ours, plain, params)
