"""Attention put into a whole detector: it starts as exactly the detector that was trained."""

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from mmse import swap_backbone
from mmse.engine.config import load_config
from mmse.models import SEResNet

CONFIG = Path(__file__).parents[2] / 'configs/faster_rcnn_se_r50.py'
SIZE = 128


def plain_config() -> Config:
    cfg = load_config(str(CONFIG))
    cfg.model.backbone.type = 'ResNet'
    del cfg.model.backbone.attention
    return cfg


@pytest.fixture(scope='module')
def detector(tmp_path_factory) -> tuple[nn.Module, Path]:
    """A plain Faster R-CNN with uneven norms and spread scores, and its checkpoint."""
    init_default_scope('mmdet')
    torch.manual_seed(3)
    model = MODELS.build(plain_config().model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for layer in (model.roi_head.bbox_head.fc_cls, model.rpn_head.rpn_cls):
            layer.weight.mul_(60)
    path = tmp_path_factory.mktemp('plain') / 'detector.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return with_exact_backbone(model), path


def with_exact_backbone(model: nn.Module) -> nn.Module:
    """In inference with the backbone in float64: rounding then decides on no box downstream."""
    backbone = model.eval().backbone.double()
    backbone.register_forward_pre_hook(lambda _, images: images[0].double())
    backbone.register_forward_hook(lambda *call: tuple(map_.float() for map_ in call[-1]))
    return model


def detect(model: nn.Module, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    shape = (SIZE, SIZE)
    meta = dict.fromkeys(('img_shape', 'ori_shape', 'batch_input_shape'), shape)
    samples = [DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)}) for _ in images]
    with torch.no_grad():
        return [s.pred_instances.to_dict() for s in model.predict(images, samples)]


@pytest.mark.parametrize('attention', ['sepp_v2', 'sepp_v2_residual'])
def test_same_detections(detector, attention: str) -> None:
    plain, path = detector
    cfg = plain_config()
    swap_backbone(cfg, attention)
    twin = with_exact_backbone(MODELS.build(cfg.model))
    load_checkpoint(twin, str(path))
    assert isinstance(twin.backbone, SEResNet)
    assert not torch.equal(twin.backbone.layer1[0].bn3.weight, plain.backbone.layer1[0].bn3.weight)
    images = torch.randn(2, 3, SIZE, SIZE)
    pairs = zip(detect(twin, images), detect(plain, images), strict=True)
    for ours, theirs in pairs:
        assert len(theirs['scores']) > 20 and theirs['scores'].std() > 0.05
        assert torch.equal(ours['labels'], theirs['labels'])
        # The file is in float32, and so is the norm's weight divided by the first gain.
        torch.testing.assert_close(ours['scores'], theirs['scores'], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours['bboxes'], theirs['bboxes'], rtol=1e-5, atol=1e-4)


def test_without_the_identity_start_the_detections_change(detector) -> None:
    """So that the test above cannot pass by chance."""
    plain, path = detector
    cfg = plain_config()
    swap_backbone(cfg, 'sepp_v2')
    cfg.model.backbone.preserve_pretrained = False
    twin = with_exact_backbone(MODELS.build(cfg.model))
    load_checkpoint(twin, str(path))
    images = torch.randn(2, 3, SIZE, SIZE)
    scores = [detect(model, images)[0]['scores'] for model in (twin, plain)]
    assert len(scores[0]) != len(scores[1]) or (scores[0] - scores[1]).abs().max() > 0.01
