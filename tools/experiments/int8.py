"""What int8 costs an FCN, by the gate of its attention.

For each gate an FCN R18 is trained on the built-in data. Its backbone is exported, quantised
statically by onnxruntime (weights and activations int8, weights per channel, calibrated on training
images), and put back into the segmenter. ``results/int8.json`` holds the mIoU with the backbone in
torch, in onnxruntime and in int8, and the signal-to-error ratio of the features of each stage. A
gate whose result is there is not measured again.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import Tensor, nn

from mmse.engine.build import build_runner
from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.export.onnx import export_onnx
from mmse.utils.files import read_json, write_json

WORK = Path('work_dirs/int8')
RESULTS = Path('results/int8.json')
GATES = ('sigmoid', 'hardsigmoid')
ITERATIONS, CALIBRATION_BATCHES = 240, 16


class OnnxBackbone(nn.Module):
    """A backbone in onnxruntime: images (B, 3, H, W) to the feature maps of its stages."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, self.session.run(None, {'images': images.numpy()})))


class Calibration(CalibrationDataReader):
    """Feeds images (B, 3, H, W), batch after batch."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {'images': batch}


def quantise(file: Path, out: Path, batches: Iterator[np.ndarray]) -> None:
    """Quantise an ONNX file statically to int8.

    Args:
        file: The exported backbone with folded norms.
        out: The file to write.
        batches: Batches of images to calibrate with, each (B, 3, H, W).
    """
    quantize_static(file, out, Calibration(batches), per_channel=True)


def signal_to_error(found: Tensor, wanted: Tensor) -> float:
    """Energy of a feature map over the energy of its error, dB."""
    return float(10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum()))


def config(gate: str) -> Config:
    cfg = load_config(
        'configs/fcn_se_r50.py',
        {
            'model.backbone.depth': 18,
            'model.backbone.attention.gate': gate,
            'model.decode_head.in_channels': 512,
            'model.auxiliary_head.in_channels': 256,
            'train_cfg.max_iters': ITERATIONS,
        },
    )
    cfg.work_dir, cfg.launcher = str(WORK / gate), 'none'
    return cfg


def measure(gate: str) -> dict[str, Any]:
    """Train with one gate, quantise, and evaluate."""
    cfg = config(gate)
    model = preflight(cfg, ('train', 'val'), whole_checkpoint=False)
    runner = build_runner(cfg, model)
    runner.train()
    model = runner.model.eval()
    backbone = model.backbone
    metrics = {'torch': float(runner.val_loop.run()['mIoU'])}

    files = {name: WORK / gate / f'{name}.onnx' for name in ('float', 'int8')}
    images = next(iter(runner.val_dataloader))
    images = model.data_preprocessor(images, False)['inputs']
    with torch.no_grad():
        wanted = backbone(images)
    count, _, height, width = images.shape
    sizes = [(count, height, width), (1, height, width)]
    export_onnx(backbone, files['float'], sizes, fold=True)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batches = (
        model.data_preprocessor(batch, False)['inputs'].numpy()
        for _, batch in zip(range(CALIBRATION_BATCHES), loader, strict=False)
    )
    quantise(files['float'], files['int8'], batches)
    for name, file in files.items():
        model.backbone = OnnxBackbone(file)
        metrics[name] = float(runner.val_loop.run()['mIoU'])
    found = model.backbone(images)
    return {
        'mIoU': metrics,
        'signal_to_error_dB': [signal_to_error(a, b) for a, b in zip(found, wanted, strict=True)],
        'bytes': {name: file.stat().st_size for name, file in files.items()},
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    results = read_json(RESULTS) if RESULTS.is_file() else {}
    for gate in GATES:
        if gate not in results:
            results[gate] = measure(gate)
            write_json(RESULTS, results)
    for gate, result in results.items():
        print(gate, json.dumps(result))


if __name__ == '__main__':
    main()
