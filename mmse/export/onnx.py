"""ONNX files of backbones, segmenters and single-stage detectors, checked against onnxruntime."""

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
    """What the head of a single-stage detector gives for each level, before boxes are decoded."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(level for kind in self.model(x, mode='tensor') for level in kind)


def load_part(cfg: Config, checkpoint: str, part: str) -> nn.Module:
    """The module of a trained model that is to be exported, in eval mode.

    Args:
        cfg: The full config of the model.
        checkpoint: Its checkpoint.
        part: ``'backbone'``, or ``'model'``: all of a segmenter, or of a single-stage detector all
            but the decoding of boxes.

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
        f'{type(model).__name__} picks its proposals with code that is no network: export --part '
        'backbone, or all of it with mmdeploy (docs/production.md has the recipe)'
    )


def export_onnx(module: nn.Module, path: Path, example: tuple[int, int, int], fold: bool) -> None:
    """Write a module as ONNX with dynamic batch, height and width.

    Args:
        module: In eval mode; changed where ``fold`` is given.
        path: The file, which appears whole or not at all.
        example: Batch, height and width that the module is traced with.
        fold: Put each batch norm into the convolution before it, and constants into one.

    Raises:
        UserError: A package is missing that the export needs.
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
    """The largest difference of an ONNX file's outputs from the module's, over their largest value.

    Args:
        module: In eval mode.
        path: The ONNX file.
        sizes: Batch, height and width of the random images to compare with.

    Returns:
        The worst relative difference of all outputs for each size.
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
