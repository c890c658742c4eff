"""Every shipped config builds its model and takes one training step on random images."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models import ResNet
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmse.engine.config import load_config
from mmse.models import SEResNet

ROOT = Path(__file__).parents[2] / 'configs'
# Those of ablations are questions about the others; those of classification have a test of their
# own, beside mmpretrain.
CONFIGS = sorted(
    str(p.relative_to(ROOT))
    for p in ROOT.rglob('*.py')
    if not {'_base_', 'ablations', 'classification'} & set(p.parts)
)


def without_downloads(cfg: Config) -> Config:
    """Pretrained weights cannot be fetched in a test; what they change is their start only."""
    cfg.model.backbone.init_cfg = None
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    return cfg


def detection_batch(size: int, num_classes: int, masks: bool) -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for _ in range(2):
        corner = rng.uniform(0, size / 2, (3, 2))
        boxes = np.hstack([corner, corner + rng.uniform(size / 4, size / 2, (3, 2))])
        gt = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.tensor(rng.integers(0, num_classes, 3)),
        )
        if masks:
            bitmaps = np.zeros((3, size, size), np.uint8)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes.astype(int), strict=True):
                bitmap[y1:y2, x1:x2] = 1
            gt.masks = BitmapMasks(bitmaps, size, size)
        shape = {'img_shape': (size, size), 'ori_shape': (size, size), 'scale_factor': (1.0, 1.0)}
        sample = DetDataSample(metainfo={**shape, 'batch_input_shape': (size, size)})
        sample.gt_instances = gt
        inputs.append(torch.tensor(rng.integers(0, 256, (3, size, size)), dtype=torch.uint8))
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def segmentation_batch(size: tuple[int, int], num_classes: int) -> dict[str, Any]:
    from mmseg.structures import SegDataSample

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for _ in range(2):
        labels = torch.tensor(rng.integers(0, num_classes, (1, *size)))
        sample = SegDataSample(metainfo={'img_shape': size, 'ori_shape': size})
        sample.gt_sem_seg = PixelData(data=labels)
        inputs.append(torch.tensor(rng.integers(0, 256, (3, *size)), dtype=torch.uint8))
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def test_there_are_configs_of_every_kind() -> None:
    kinds = {name.split('/')[0] if '/' in name else 'built-in' for name in CONFIGS}
    assert kinds == {'built-in', 'coco', 'ade20k', 'cityscapes', 'bccd', 'camvid'}
    assert len(CONFIGS) == 8 + 4 + 4 + 4 + 2 + 2


def test_widths_are_those_of_mmdet() -> None:
    widths = Config.fromfile(ROOT / '_base_/resnet.py').widths
    blocks = {depth: block for depth, (block, _) in ResNet.arch_settings.items()}
    assert widths == {
        depth: [64 * 2**stage * block.expansion for stage in range(4)]
        for depth, block in blocks.items()
    }


@pytest.mark.parametrize(
    'name', [n for n in CONFIGS if 'edit these first' in (ROOT / n).read_text()]
)
def test_depth_is_edited_in_one_place(name: str, tmp_path: Path) -> None:
    """Neck and heads follow the depth at the top of the file."""
    text = re.sub(r"'(\.\./)?_base_/", f"'{ROOT}/_base_/", (ROOT / name).read_text())
    assert text.count('depth = 50  # 18, 34, 50, 101 or 152') == 1
    (tmp_path / 'edited.py').write_text(text.replace('depth = 50', 'depth = 18'))
    cfg = load_config(str(tmp_path / 'edited.py'))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    features = model.extract_feat(torch.randn(1, 3, 64, 64))
    if cfg.default_scope == 'mmseg':
        for head in (model.decode_head, model.auxiliary_head):
            assert head(features).shape[1] == head.num_classes
    else:
        assert {level.shape[1] for level in features} == {128}


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_one_training_step(name: str) -> None:
    cfg = without_downloads(load_config(str(ROOT / name)))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    if cfg.default_scope == 'mmseg':
        # The preprocessor pads to the crop size; full-scale crops are too large for a test.
        size = (64, 96)
        cfg.model.data_preprocessor.size = size
        batch = segmentation_batch(size, cfg.model.decode_head.num_classes)
    else:
        head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
        batch = detection_batch(128, head.num_classes, 'mask_head' in cfg.model.get('roi_head', {}))
    model = MODELS.build(cfg.model)
    assert isinstance(model.backbone, SEResNet)
    model.init_weights()
    model.train()
    wrapper_cfg = cfg.optim_wrapper
    optim_wrapper = build_optim_wrapper(model, wrapper_cfg)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    losses = model.train_step(batch, optim_wrapper)
    assert losses['loss'].isfinite()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    trainable = {key for key, value in model.named_parameters() if value.requires_grad}
    assert moved <= trainable
    # Zero-initialised norms stop the gradient of their branch for one step, so not all move.
    backbone_moved = [key for key in moved if key.startswith('backbone.')]
    assert len(backbone_moved) >= 10 and len(moved) > len(backbone_moved)
