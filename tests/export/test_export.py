"""ONNX files: equal to the model in onnxruntime at sizes that they were not traced with."""

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from support.engine import CONFIGS, TINY_FASTER_RCNN, TINY_FCN
from support.processes import run_script
from torch import nn

from mmse.engine.config import load_config
from mmse.export.detector import Agreement, check
from mmse.export.onnx import TOLERANCE, export_onnx, parity
from mmse.export.parts import load_part
from mmse.models import SEResNet
from mmse.models.settings import PRESETS
from mmse.utils.errors import UserError

ROOT = CONFIGS.parent
SIZES = [(1, 64, 96), (2, 96, 64), (3, 65, 101)]
TINY_RETINANET = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.neck.out_channels': 16,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
}


def shaken(module: nn.Module) -> nn.Module:
    """With statistics, norms and attention that are not those of the start."""
    torch.manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and 'raw_temperature' not in name:
            noise = torch.randn_like(value) * 0.1
            value.add_(noise.abs() if name.endswith('running_var') else noise)
    return module.eval()


def saved(config: str, options: dict, folder: Path) -> tuple[Path, Path]:
    """A tiny form of a shipped config and a checkpoint of it."""
    cfg = load_config(str(CONFIGS / config), options)
    init_default_scope(cfg.default_scope)
    model = shaken(MODELS.build(cfg.model))
    cfg.dump(folder / config)
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')
    return folder / config, folder / 'weights.pth'


# A preset a block: every one of them is in one of two networks.
NAMES = sorted(PRESETS)
HALVES = [NAMES[:8], NAMES[-8:]]


@pytest.mark.slow
@pytest.mark.parametrize('presets', HALVES, ids=['first presets', 'last presets'])
@pytest.mark.parametrize('fold', [False, True], ids=['as it is', 'folded'])
def test_backbone_with_every_preset(presets, fold, tmp_path, record_property):
    attention = [presets[i : i + 2] for i in range(0, 8, 2)]
    net = shaken(SEResNet(18, base_channels=8, attention=attention))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [out.clone() for out in net(images)]
    file = tmp_path / 'net.onnx'
    worst = max(export_onnx(net, file, SIZES, fold).values())
    record_property('worst relative difference of onnxruntime', worst)
    # Folding changes the network itself, so it is compared with what it was before.
    found = onnxruntime.InferenceSession(file).run(None, {'images': images.numpy()})
    for a, b in zip(found, expected, strict=True):
        assert (torch.from_numpy(a) - b).abs().max() < TOLERANCE * b.abs().max()
    assert list(tmp_path.iterdir()) == [file]


class Pair(nn.Module):
    """Two outputs, as a backbone has four."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return x, self.second(x)


def test_parity_sees_a_difference(tmp_path):
    net = Pair().eval()
    export_onnx(net, tmp_path / 'net.onnx', SIZES, False)
    images = torch.randn(SIZES[0][0], 3, *SIZES[0][1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = net(images)
    found = parity(tmp_path / 'net.onnx', net, {SIZES[0]: [first, second]})
    assert found[SIZES[0]] < TOLERANCE
    second[:, 1] += 1e-2
    found = parity(tmp_path / 'net.onnx', net, {SIZES[0]: [first, second]})
    assert found[SIZES[0]] == pytest.approx(1e-2 / float(second.abs().max()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'options'),
    [
        ('fcn_se_r50.py', TINY_FCN | {'model.backbone.in_channels': 4}),
        ('retinanet_se_r50.py', TINY_RETINANET),
    ],
    ids=['segmenter', 'single-stage detector'],
)
def test_whole_model_from_the_command_line(config, options, tmp_path):
    cfg, checkpoint = saved(config, options, tmp_path)
    places = (cfg, checkpoint, tmp_path / 'out.onnx')
    run = run_script(
        ROOT / 'tools/export_onnx.py', *places, '--sizes', '1x64x96', '2x96x64', cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count('relative difference') == 3
    session = onnxruntime.InferenceSession(tmp_path / 'out.onnx')
    channels, outputs = (4, 1) if config.startswith('fcn') else (3, 10)
    assert session.get_inputs()[0].shape == ['batch', channels, 'height', 'width']
    assert len(session.get_outputs()) == outputs


def test_two_stage_detectors_are_sent_to_mmdeploy(tmp_path):
    cfg, checkpoint = saved('faster_rcnn_se_r50.py', TINY_FASTER_RCNN, tmp_path)
    with pytest.raises(UserError, match=r'FasterRCNN selects proposals .* tools.export_detector'):
        load_part(load_config(str(cfg)), str(checkpoint), 'model')
    assert isinstance(load_part(load_config(str(cfg)), str(checkpoint), 'backbone'), SEResNet)


def test_a_checkpoint_of_another_depth_is_refused(tmp_path):
    cfg, checkpoint = saved('fcn_se_r50.py', TINY_FCN, tmp_path)
    other = load_config(str(cfg), {'model.backbone.depth': 34})
    with pytest.raises(UserError, match='does not belong to this model'):
        load_part(other, str(checkpoint), 'backbone')


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr('mmse.export.onnx.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mmse\[onnx\]'"):
        export_onnx(nn.Identity(), tmp_path / 'x.onnx', SIZES, False)


@pytest.mark.slow
@pytest.mark.parametrize('gate', ['sigmoid', 'hardsigmoid'])
def test_int8_keeps_the_features(gate, tmp_path):
    int8 = runpy.run_path(str(ROOT / 'tools/experiments/int8.py'))
    net = shaken(SEResNet(18, base_channels=16, attention={'gate': gate, 'act': 'relu'}))
    images = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        wanted = [out.clone() for out in net(images)]
    export_onnx(net, tmp_path / 'float.onnx', SIZES, True)
    batches = iter(images.split(4))
    int8['quantise'](tmp_path / 'float.onnx', tmp_path / 'int8.onnx', (b.numpy() for b in batches))
    quantised = int8['OnnxBackbone'](tmp_path / 'int8.onnx')
    kinds = {node.op_type for node in onnx.load(tmp_path / 'int8.onnx').graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= kinds
    assert ('Sigmoid' in kinds) == (gate == 'sigmoid')
    for found, expected in zip(quantised(images), wanted, strict=True):
        error = (found - expected).square().sum() / expected.square().sum()
        ratio = int8['signal_to_error'](found, expected)
        assert ratio == pytest.approx(-10 * math.log10(error), abs=1e-3)
        assert ratio > 10
    assert (tmp_path / 'int8.onnx').stat().st_size < 0.5 * (tmp_path / 'float.onnx').stat().st_size


@pytest.mark.slow
def test_a_whole_detector_by_mmdeploy(tmp_path):
    folder = Path(sys.prefix, 'mmdeploy')
    if not (folder / 'mmdeploy').is_dir():
        pytest.skip('mmdeploy has no build for this machine')
    # Without suppression: mmdeploy does it over all levels and mmdet in each, and among the boxes
    # of a network that is not trained the last bit decides which one stays.
    keep = {f'model.test_cfg.{k}.nms.iou_threshold': 1.0 for k in ('rpn', 'rcnn')}
    keep |= {f'model.test_cfg.{k}.max_per_img': 2000 for k in ('rpn', 'rcnn')}
    cfg, checkpoint = saved('faster_rcnn_se_r50.py', TINY_FASTER_RCNN | keep, tmp_path)
    weights = torch.load(checkpoint)
    for layer in ('fc_cls', 'fc_reg'):  # scores that are apart from each other, boxes that move
        weights['state_dict'][f'roi_head.bbox_head.{layer}.weight'] *= 5
    torch.save(weights, checkpoint)
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'image.png')
    command = [sys.executable, 'tools/export_detector.py', str(cfg), str(checkpoint)]
    run = subprocess.run(
        [*command, str(tmp_path / 'image.png'), str(tmp_path / 'out.onnx')],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(folder)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = re.findall(r'(\w+): (\d+) of (\d+) boxes .* within (\S+) pixels', run.stdout)
    assert [size for size, *_ in lines] == ['96x128', '64x96']
    # A box is found only if the network agrees; which of many alike is kept, only NMS knows.
    for found, wanted in (map(int, numbers) for _, *numbers, _ in lines):
        assert wanted >= 5
        assert found >= wanted / 2
    assert float(lines[0][-1]) < 1e-3
    outputs = onnxruntime.InferenceSession(tmp_path / 'out.onnx').get_outputs()
    assert [output.name for output in outputs] == ['dets', 'labels']
    assert list(tmp_path.glob('*.part*')) == []


def test_a_detector_that_misses_half_the_boxes_is_not_written():
    half = Agreement(96, 128, boxes=4, found=0, distance=0.0, missed=2)
    check([half, half._replace(boxes=0, missed=0)])
    with pytest.raises(UserError, match="96x128 it misses 3 of the detector's 4 boxes"):
        check([half, half._replace(missed=3)])
