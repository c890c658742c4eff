"""Swapping the backbones of configs that exist already."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmse.engine.config import load_config
from mmse.engine.config.swap import parse_attention, swap_backbone
from mmse.models import SEResNet
from mmse.utils.errors import UserError

DECAY_FREE = {'attention.alpha', 'attention.fusion_logits', 'attention.raw_temperature'}


@pytest.mark.parametrize(
    ('name', 'kind', 'new'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'ResNet', 'mmse.SEResNet'),
        ('mmdet::retinanet/retinanet_x101-32x4d_fpn_1x_coco.py', 'ResNeXt', 'mmse.SEResNeXt'),
        ('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', 'ResNetV1c', 'mmse.SEResNetV1c'),
        ('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py', 'ResNet', 'mmse.SEResNet'),
    ],
)
def test_installed_configs(name: str, kind: str, new: str) -> None:
    cfg = load_config(name)
    settings = {k: v for k, v in cfg.model.backbone.items() if k != 'type'}
    changes = swap_backbone(cfg, 'sepp_v2')
    assert changes[0] == f'model.backbone.type: {kind} -> {new}'
    written = {'stem_channels': 64} if kind == 'ResNetV1c' else {}
    assert cfg.model.backbone == {**settings, 'type': new, 'attention': 'sepp_v2', **written}
    init_default_scope(cfg.default_scope)
    assert isinstance(MODELS.build({**cfg.model.backbone, 'init_cfg': None}), SEResNet)


def test_defaults_of_the_replaced_class_are_written_out() -> None:
    backbone = {'type': 'mmseg.ResNetV1c', 'depth': 18, 'base_channels': 32}
    cfg = Config({'default_scope': 'mmseg', 'model': {'backbone': backbone}})
    changes = swap_backbone(cfg, None)
    assert cfg.model.backbone.norm_eval is False and cfg.model.backbone.stem_channels == 64
    assert 'model.backbone.norm_eval: False' in changes
    torch.manual_seed(0)
    theirs = MODELS.build(backbone)
    ours = MODELS.build(cfg.model.backbone)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    pairs = zip(ours.train()(x), theirs(x), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in theirs.state_dict().items())


def test_defaults_are_those_of_the_default_scope() -> None:
    for scope, norm_eval in (('mmseg', False), ('mmdet', None)):
        cfg = Config({'default_scope': scope, 'model': {'backbone': {'type': 'ResNet'}}})
        swap_backbone(cfg, None)
        assert cfg.model.backbone.get('norm_eval') is norm_eval


def test_what_cannot_be_swapped_is_named() -> None:
    cfg = Config({'model': {'backbone': {'type': 'mmrotate.ResNet', 'depth': 50}}})
    with pytest.raises(UserError, match=r'model\.backbone: mmrotate\.ResNet is not there'):
        swap_backbone(cfg, 'se')
    with pytest.raises(UserError, match='no backbone to swap: found none'):
        swap_backbone(Config({'img_scales': [1]}), 'se')


def test_nested_backbones_and_classes() -> None:
    """A distiller's teacher is nested; pure-Python configs give the class itself."""
    from mmdet.models import ResNet, ResNeXt

    cfg = Config(
        {
            'model': {
                'backbone': {'type': ResNet, 'depth': 50},
                'teachers': [{'backbone': {'type': ResNeXt, 'depth': 101, 'groups': 32}}],
            }
        }
    )
    swap_backbone(cfg, 'se')
    assert cfg.model.backbone == {'type': 'mmse.SEResNet', 'depth': 50, 'attention': 'se'}
    assert cfg.model.teachers[0].backbone.type == 'mmse.SEResNeXt'


def test_under_every_key_and_into_ours() -> None:
    """BiSeNet calls its backbone ``backbone_cfg``; ours takes the attention and keeps its type."""
    backbone = {'type': 'mmse.SEResNet', 'depth': 50, 'attention': 'se'}
    inner = {'type': 'ResNet', 'depth': 18, 'norm_eval': True}
    host = {'type': 'BiSeNetV1', 'backbone_cfg': inner}
    cfg = Config({'default_scope': 'mmdet', 'model': {'backbone': host}})
    swap_backbone(cfg, 'sepp_v2')
    expected = {**inner, 'type': 'mmse.SEResNet', 'attention': 'sepp_v2'}
    assert cfg.model.backbone.backbone_cfg == expected
    cfg = Config({'model': {'backbone': backbone}})
    assert swap_backbone(cfg, 'sepp_v2') == ["model.backbone.attention: 'se' -> 'sepp_v2'"]
    assert cfg.model.backbone == {**backbone, 'attention': 'sepp_v2'}


def test_no_weight_decay_on_the_scalars() -> None:
    cfg = load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    cfg.optim_wrapper.paramwise_cfg = {'custom_keys': {'neck': {'lr_mult': 0.5}}}
    swap_backbone(cfg, 'sepp_v2_residual')
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.neck == {'lr_mult': 0.5}
    assert {key for key, value in keys.items() if value.get('decay_mult') == 0} == DECAY_FREE
    names = dict(SEResNet(18, attention='sepp_v2_residual').named_parameters())
    assert any(DECAY_FREE & {name.split('.', 2)[2]} for name in names if '.attention.' in name)


def test_other_backbones_are_named() -> None:
    cfg = load_config('mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py')
    message = r'model\.backbone \(PyramidVisionTransformer\); supported: ResNet, ResNetV1c'
    with pytest.raises(UserError, match=message):
        swap_backbone(cfg, 'se')


@pytest.mark.parametrize(
    ('text', 'attention'),
    [
        ('sepp_v2', 'sepp_v2'),
        ('None', None),
        ('squeeze=avg+max,residual=True', {'squeeze': 'avg+max', 'residual': True}),
        ('preset=se,temperature=2', {'preset': 'se', 'temperature': 2}),
    ],
)
def test_attention_of_a_command_line(text: str, attention) -> None:
    assert parse_attention(text) == attention


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('sepp_v3', r"'sepp_v3' is not a preset \(did you mean 'sepp_v2'\?\)"),
        ('squeeze=mean', r"--attention\.squeeze: 'mean' is not a squeeze"),
        ('squeeze=avg,residual', r'give a preset, or KEY=VALUE'),
    ],
)
def test_wrong_attention_on_a_command_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_attention(text)


def test_the_scope_around_a_backbone_says_whose_it_is() -> None:
    """mmocr's MMDetWrapper holds a detector of mmdet's; so can a model of any codebase."""
    inner = {'type': 'FasterRCNN', '_scope_': 'mmdet', 'backbone': {'type': 'ResNet', 'depth': 50}}
    cfg = Config({'default_scope': 'mmseg', 'model': {'type': 'Wrapper', 'cfg': inner}})
    swap_backbone(cfg, None)
    # mmdet's default of norm_eval is ours; mmseg's would have been written out.
    assert 'norm_eval' not in cfg.model.cfg.backbone


def test_an_optimizer_without_weight_decay_stays_as_it_is() -> None:
    """MMEngine refuses a factor of a weight decay that is not there."""
    cfg = load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    del cfg.optim_wrapper.optimizer['weight_decay']
    before = cfg.optim_wrapper.to_dict()
    swap_backbone(cfg, 'sepp_v2_residual')
    assert cfg.optim_wrapper == before
