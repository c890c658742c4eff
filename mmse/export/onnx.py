"""ONNX files of backbones, segmenters and single-stage detectors, compared in onnxruntime."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.export import Dim

from mmse.engine.build import load_trained
from mmse.utils.errors import UserError
from mmse.utils.files import replacing

TOLERANCE = 1e-4
PARTS = ('model', 'backbone')
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
Sizes = Sequence[tuple[int, int, int]]  # batch, height, width


class _Segmenter(nn.Module):
    """Logits of a segmenter at the size of its input, (B, classes, H, W)."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model.encode_decode(x, [{'img_shape': x.shape[2:]}])
        return logits


class _Detector(nn.Module):
    """Outputs of a single-stage detector's head at each level, before boxes are decoded."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(level for kind in self.model(x, mode='tensor') for level in kind)


def load_part(cfg: Config, checkpoint: str, part: str) -> nn.Module:
    """The part of a trained model that is to be exported, in eval mode.

    Args:
        cfg: The full config of the model.
        checkpoint: The checkpoint file.
        part: ``'backbone'`` or ``'model'``, which is a whole segmenter, or a single-stage detector
            without the decoding of boxes.

    Raises:
        UserError: The checkpoint does not belong to the model, or the part cannot be exported.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = load_trained(cfg, checkpoint)
    if part == 'backbone':
        return model.get_submodule('backbone')
    if hasattr(model, 'encode_decode'):
        return _Segmenter(model)
    if hasattr(model, 'bbox_head'):
        return _Detector(model)
    raise UserError(
        f'{type(model).__name__} selects proposals in Python code that ONNX cannot hold: use '
        '--part backbone, or tools/export_detector.py for all of it'
    )


def export_onnx(module: nn.Module, path: Path, example: tuple[int, int, int], fold: bool) -> None:
    """Write a module as ONNX with dynamic batch, height and width.

    Args:
        module: In eval mode; ``fold`` changes it.
        path: The file, which appears whole or not at all.
        example: Batch size, height and width of the images to trace with.
        fold: Fold each batch norm into the convolution before it, and constants into each other.

    Raises:
        UserError: A package that the export needs is missing.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise UserError(f"exporting needs {package}: pip install 'mmse[onnx]'")
    if fold:
        fuse_conv_bn(module)
    batch, height, width = example
    with replacing(path) as part:
        torch.onnx.export(
            module,
            (torch.randn(batch, 3, height, width),),
            part,
            input_names=['images'],
            dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},),
            external_data=False,
            optimize=fold,
            verbose=False,
        )


def parity(module: nn.Module, path: Path, sizes: Sizes) -> dict[tuple[int, int, int], float]:
    """How far the outputs of an ONNX file in onnxruntime are from the module's.

    Args:
        module: In eval mode.
        path: The ONNX file.
        sizes: Batch size, height and width of the random images to compare on.

    Returns:
        For each size the largest difference of an output over its largest absolute value, the
        worst of all outputs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = {}
    for size in sizes:
        batch, height, width = size
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours = module(images)
        theirs = session.run(None, {'images': images.numpy()})
        ours = [ours] if isinstance(ours, Tensor) else ours
        worst[size] = max(
            float((torch.from_numpy(a) - b).abs().max() / b.abs().max())
            for a, b in zip(theirs, ours, strict=True)
        )
    return worst
