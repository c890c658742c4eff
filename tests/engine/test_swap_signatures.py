"""Classes that are called ResNet and have other arguments than ours: mapped, or refused whole."""

import copy
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.model import BaseModule

from mmse.engine.config.swap import swap_backbone
from mmse.models import SEResNet, SEResNeXt
from mmse.utils.errors import UserError


def named(name: str, **defaults: Any) -> type:
    """A class of this name whose arguments have these defaults."""
    arguments = ''.join(
        f', {key}={value!r}' for key, value in {'init_cfg': None, **defaults}.items()
    )
    namespace: dict[str, Any] = {'BaseModule': BaseModule, '__name__': 'theirs.backbones'}
    exec(  # arguments are what is tested
        f'class {name}(BaseModule):\n    def __init__(self, depth{arguments}):\n        pass',
        namespace,
    )
    return namespace[name]


def config(kind: type, depth: int = 50, **settings: Any) -> Config:
    """A detector of mmdet beside a second network of the class."""
    second = {'backbone': {'type': kind, 'depth': depth, **settings}}
    model = {'backbone': {'type': 'mmdet.ResNet', 'depth': 50}, 'reid': second}
    optimizer = {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.1}
    return Config({'model': model, 'optim_wrapper': {'optimizer': optimizer}})


@pytest.mark.parametrize(
    ('defaults', 'settings', 'named_as'),
    [
        ({'block_cfgs': None}, {}, 'block_cfgs=None'),
        ({'partial_bn': False}, {}, 'partial_bn=False'),
        ({'expansion': None}, {'expansion': 2}, 'expansion=2'),
        ({}, {'with_cls_token': True}, 'with_cls_token=True'),
    ],
    ids=str,
)
def test_what_ours_lacks_is_refused_and_nothing_is_changed(
    defaults: dict[str, Any], settings: dict[str, Any], named_as: str
) -> None:
    cfg = config(named('ResNet', **defaults), **settings)
    before = copy.deepcopy(cfg.to_dict())
    sentence = (
        rf'^model\.reid\.backbone: theirs\.ResNet of theirs has {named_as}, which mmse\.SEResNet'
    )
    with pytest.raises(UserError, match=sentence):
        swap_backbone(cfg, 'sepp_v2_residual')
    assert cfg.to_dict() == before


def test_arguments_under_another_name() -> None:
    kind = named('ResNeXt', width_per_group=4, groups=1, expansion=None, drop_path_rate=0.0)
    cfg = config(kind, 101, width_per_group=8, groups=32, expansion=4, drop_path_rate=0.1)
    swap_backbone(cfg, 'se')
    settings = dict(cfg.model.reid.backbone)
    assert settings.pop('type') == 'mmse.SEResNeXt'
    ours = SEResNeXt(**settings)
    assert ours.layer1[0].conv2.weight.shape == (256, 8, 3, 3)  # 32 groups of 8
    assert ours.layer4[-1].drop_path.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize(
    ('default', 'given'), [(True, {}), (False, {}), (True, {'norm_eval': False})]
)
def test_the_default_of_their_class_holds(default: bool, given: dict[str, Any]) -> None:
    cfg = config(named('ResNet', norm_eval=default, stem_channels=64), base_channels=32, **given)
    swap_backbone(cfg, None)
    settings = dict(cfg.model.reid.backbone)
    settings.pop('type')
    net = SEResNet(**settings)
    assert net.norm_eval is given.get('norm_eval', default) and net.stem_channels == 64
