"""MMEngine's pure-Python configs, in which ``type`` is the class itself."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from support.data_checks import write_coco

from mmse import swap_backbone
from mmse.engine.config import load_config
from mmse.models import SEResNet, SEResNetV1c, SEResNeXt

pytestmark = [pytest.mark.usefixtures('single_thread'), pytest.mark.filterwarnings('ignore')]

# The installed wheels ship text configs only; these are written the way of the repositories.
DETECTOR = """
from mmdet.models import FPN, DetDataPreprocessor, ResNet, RPN, RPNHead
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmengine.optim import OptimWrapper
from torch.nn import BatchNorm2d
from torch.optim import SGD

default_scope = None
model = dict(
    type=RPN,
    data_preprocessor=dict(type=DetDataPreprocessor),
    backbone=dict(
        type=ResNet,
        depth=50,
        base_channels=16,
        frozen_stages=1,
        norm_cfg=dict(type=BatchNorm2d, requires_grad=True),
        init_cfg=None,
    ),
    neck=dict(type=FPN, in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5),
    rpn_head=dict(
        type=RPNHead,
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(
            type=AnchorGenerator, scales=[8], ratios=[1.0], strides=[4, 8, 16, 32, 64]
        ),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss),
    ),
    train_cfg=dict(rpn=dict()),
    test_cfg=dict(rpn=dict(nms_pre=10, max_per_img=10)),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.02, weight_decay=1e-4))
"""
RESNEXT = """
from mmdet.models import ResNeXt
from mmengine.config import read_base

with read_base():
    from .detector import *

model.update(dict(backbone=dict(
    type=ResNeXt, depth=50, base_channels=16, groups=4, base_width=8, frozen_stages=2)))
"""
SEGMENTER = """
from mmseg.models import EncoderDecoder, FCNHead, ResNetV1c, SegDataPreProcessor
from mmengine.optim import OptimWrapper
from torch.optim import SGD

default_scope = 'mmseg'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor),
    backbone=dict(
        type=ResNetV1c,
        depth=50,
        base_channels=16,
        stem_channels=16,
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg,
        contract_dilation=True,
    ),
    decode_head=dict(
        type=FCNHead, in_channels=512, channels=16, num_classes=3, norm_cfg=norm_cfg, in_index=3
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01, weight_decay=5e-4))
"""
FILES = {'detector': DETECTOR, 'resnext': RESNEXT, 'segmenter': SEGMENTER}
KINDS = {
    'detector': ('mmdet', 'ResNet', SEResNet),
    'resnext': ('mmdet', 'ResNeXt', SEResNeXt),
    'segmenter': ('mmseg', 'ResNetV1c', SEResNetV1c),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / f'{name}.py').write_text(text)
    return tmp_path


def randomized(cfg: Config) -> torch.nn.Module:
    """The whole model of a config with uneven weights, the same for the same parameters."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope or 'mmengine'):
        net = MODELS.build(cfg.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, param in sorted(net.named_parameters()):
            param.copy_(torch.randn(param.shape, generator=generator) * 0.1)
    net.eval()
    return net


@pytest.mark.parametrize('attention', [None, 'sepp_v2_residual'])
@pytest.mark.parametrize('name', FILES)
def test_swap_and_dump(name: str, attention: str | None, folder: Path) -> None:
    """What tools/train.py does: read, swap, write the config beside the run; resuming reads it."""
    package, kind, ours = KINDS[name]
    cfg = load_config(str(folder / f'{name}.py'))
    assert isinstance(cfg.model.backbone.type, type)
    plain = randomized(cfg)
    changes = swap_backbone(cfg, attention)
    assert changes[0] == f'model.backbone.type: {package}.{kind} -> mmse.SE{kind}'
    assert f"type='mmse.SE{kind}'" in cfg.pretty_text

    dumped = folder / 'dumped.py'
    cfg.dump(dumped)
    again = Config.fromfile(dumped)
    assert again.model.backbone.attention == attention
    assert again.model.backbone.type == f'mmse.SE{kind}'
    x = torch.randn(1, 3, 64, 64)
    nets = [randomized(cfg), randomized(again)]
    assert all(type(net.backbone) is ours for net in nets)
    with torch.no_grad():
        first, second = (net.backbone(x) for net in nets)
        want = plain.backbone(x)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, want)) == (attention is None)
    frozen = {'detector': 1, 'resnext': 2, 'segmenter': -1}[name]
    assert nets[1].backbone.frozen_stages == frozen
    assert nets[1].backbone.norm_eval is (package == 'mmdet')
    assert again.optim_wrapper.paramwise_cfg.custom_keys['attention.alpha'] == {'decay_mult': 0}


@pytest.mark.parametrize('name', FILES)
def test_swapping_again_changes_only_the_attention(name: str, folder: Path) -> None:
    cfg = load_config(str(folder / f'{name}.py'))
    swap_backbone(cfg, 'se')
    before = cfg.model.to_dict()
    changes = swap_backbone(cfg, 'sepp_v2')
    assert changes[0] == "model.backbone.attention: 'se' -> 'sepp_v2'"
    before['backbone']['attention'] = 'sepp_v2'
    assert cfg.model.to_dict() == before


def test_data_of_ones_own_in_a_pure_python_config(tmp_path: Path) -> None:
    """The config is fitted, and what is written of it reads back as the same config."""
    write_coco(tmp_path / 'data')
    config = tmp_path / 'pure.py'
    config.write_text(
        DETECTOR
        + f"""
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import CocoMetric
from mmengine.dataset import DefaultSampler, RepeatDataset

own_data = dict(
    data_root={str(tmp_path / 'data')!r},
    train=dict(ann_file='ann.json', img='img'),
    val=dict(ann_file='ann.json', img='img'),
    scale=(96, 64),
)
steps = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    dict(type=PackDetInputs),
]
files = dict(type=CocoDataset, ann_file='x', data_prefix=dict(img=''), pipeline=steps)
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=RepeatDataset, times=2, dataset=files),
)
val_dataloader = dict(
    batch_size=1, sampler=dict(type=DefaultSampler, shuffle=False), dataset=files
)
val_evaluator = dict(type=CocoMetric, metric='bbox')
"""
    )
    cfg = load_config(str(config))
    written = tmp_path / 'written.py'
    cfg.dump(written)
    again = Config.fromfile(written)
    repeated = again.train_dataloader.dataset
    assert repeated.type == 'mmengine.dataset.RepeatDataset'
    assert repeated.dataset.type == 'mmdet.datasets.coco.CocoDataset'
    assert repeated.dataset.pipeline[2] == dict(
        type='mmdet.datasets.transforms.Resize', scale=(96, 64), keep_ratio=True
    )
    with MODELS.switch_scope_and_registry('mmdet'):
        assert len(DATASETS.build(repeated)) == 2 * len(DATASETS.build(repeated.dataset)) > 0
