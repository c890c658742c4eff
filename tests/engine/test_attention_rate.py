"""A learning rate of its own for the attention, in the groups that MMEngine's constructor makes."""

import copy

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmse import swap_backbone
from mmse.engine.config import load_config, read
from mmse.engine.config.attention_params import NO_DECAY
from mmse.engine.config.swap import give_attention_a_rate
from mmse.models import SEResNet
from mmse.utils.errors import UserError

LR, DECAY = 0.01, 0.1


def config(paramwise=None, **wrapper):
    optimizer = {'type': 'SGD', 'lr': LR, 'weight_decay': DECAY}
    optim_wrapper = {'type': 'OptimWrapper', 'optimizer': optimizer, **wrapper}
    if paramwise is not None:
        optim_wrapper['paramwise_cfg'] = paramwise
    model = {'backbone': {'type': 'ResNet', 'depth': 18}}
    return Config({'default_scope': 'mmdet', 'model': model, 'optim_wrapper': optim_wrapper})


def rates(cfg):
    """Learning rate and weight decay of every parameter."""
    model = nn.Module()
    model.backbone = SEResNet(18, base_channels=8, attention='sepp_v2_residual')
    model.neck = nn.Conv2d(1, 1, 1)
    built = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in built.optimizer.param_groups
        for parameter in group['params']
    }


PARAMWISE = {
    'nothing': (None, 1.0, 1.0),
    'biases': ({'bias_decay_mult': 0.0, 'norm_decay_mult': 0.0}, 1.0, 0.0),
    'vectors': ({'flat_decay_mult': 0.0}, 1.0, 0.0),
    'vectors and biases': ({'flat_decay_mult': 0.5, 'bias_decay_mult': 0.25}, 1.0, 0.25),
    'a factor of the backbone': ({'custom_keys': {'backbone': {'lr_mult': 0.1}}}, 0.1, 1.0),
    'one stage': ({'custom_keys': {'layer2': {'lr_mult': 0.5, 'decay_mult': 0.3}}}, None, None),
    'a factor of the attention': (
        {'custom_keys': {'attention': {'lr_mult': 4.0, 'decay_mult': 0.25}}},
        1.0,
        0.25,
    ),
}


@pytest.mark.parametrize('case', PARAMWISE)
def test_every_parameter_gets_its_rate(case):
    paramwise, beside, bias_decay = PARAMWISE[case]
    cfg = config(paramwise)
    before = rates(cfg)
    lines = swap_backbone(cfg, 'sepp_v2_residual', lr_mult=8.0)
    assert lines[-1].endswith('learning rate of the attention 8 times that of its block')
    after = rates(cfg)
    for name, (rate, decay) in after.items():
        if '.attention.' not in name:
            assert (rate, decay) == before[name], name
            continue
        block, _, own = name.partition('.attention.')
        at = before[f'{block}.conv1.weight'][0] if beside is None else beside * LR
        assert rate == pytest.approx(8.0 * at), name
        if f'attention.{own}' in NO_DECAY:
            assert decay == 0
        elif own.endswith('bias') and bias_decay is not None:
            assert decay == pytest.approx(bias_decay * DECAY), name
        else:
            assert decay == pytest.approx(before[name][1]), name


@pytest.mark.parametrize(('kind', 'decay'), [('AdamW', 0.01), ('Adam', None), ('SGD', None)])
def test_a_weight_decay_that_no_config_names(kind, decay):
    """That of AdamW: alpha, fusion logits and temperature are spared from it as well."""
    cfg = config()
    cfg.optim_wrapper.optimizer = {'type': kind, 'lr': LR}
    swap_backbone(cfg, 'sepp_v2_residual')
    assert cfg.optim_wrapper.optimizer.get('weight_decay') == decay
    for name, (_, found) in rates(cfg).items():
        spared = any(name.endswith(scalar) for scalar in NO_DECAY)
        assert found == (0.0 if spared else decay or 0.0), name


def test_a_backbone_that_is_ours_already():
    """The factor that a config of ours has is set, not multiplied."""
    cfg = load_config('configs/fcn_se_r50.py', attention_lr_mult=3.0)
    found = rates(Config({'optim_wrapper': cfg.optim_wrapper}))
    base = cfg.optim_wrapper.optimizer.lr
    for name, (rate, _) in found.items():
        assert rate == pytest.approx(base * (3 if '.attention.' in name else 1)), name


def test_it_holds_in_pure_python_configs_and_says_so(capsys):
    cfg = load_config(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        attention='sepp_v2',
        attention_lr_mult=5.0,
    )
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys['attention.fc1.weight'] == {'lr_mult': 5.0}


def test_a_swap_says_where_the_attention_gets_no_rate_of_its_own(monkeypatch):
    def said(**options) -> bool:
        logged: list[str] = []
        monkeypatch.setattr(read, 'print_log', lambda text, _: logged.append(text))
        load_config(**options)
        return '--attention-lr-mult 10 gives it ten times that' in logged[0]

    theirs = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    assert said(name=theirs, attention='sepp_v2')
    # A factor of the whole backbone, here a tenth, is none of the attention's own.
    assert said(name='mmdet::detr/detr_r50_8xb2-150e_coco.py', attention='sepp_v2')
    assert not said(name=theirs, attention='sepp_v2', attention_lr_mult=1.0)
    assert not said(name=theirs, attention='None')
    assert not said(name='configs/fcn_se_r50.py', attention='se')  # its config gives one


@pytest.mark.parametrize(
    ('cfg', 'factor', 'message'),
    [
        (config(), 0, 'times 0 given; allowed: above 0'),
        (config(), float('nan'), 'times nan given'),
        (config(), float('inf'), 'times inf given'),
        (config(constructor='LayerDecayOptimizerConstructor'), 2.0, 'LayerDecayOptimizer.* sets'),
        (Config({'model': {'backbone': {'type': 'mmdet.ResNet', 'depth': 18}}}), 2.0, 'optim_wrap'),
    ],
)
def test_what_cannot_hold_is_refused_and_nothing_is_changed(cfg, factor, message):
    before = copy.deepcopy(cfg.to_dict())
    with pytest.raises(UserError, match=message):
        swap_backbone(cfg, 'se', lr_mult=factor)
    assert cfg.to_dict() == before


def test_a_config_without_our_backbone_is_refused():
    with pytest.raises(UserError, match='no backbone of mmse'):
        give_attention_a_rate(config(), 2.0)
