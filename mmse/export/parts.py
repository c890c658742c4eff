"""The parts of a trained model that can be exported, as modules from images to tensors."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmse.engine.build import load_trained
from mmse.utils.errors import UserError

PARTS = ('model', 'backbone')


class _Segmenter(nn.Module):
    """Logits of a segmenter at the size of its input, (B, classes, H, W)."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        # Heads read the size of the first image; those of MaskFormer count the images as well. A
        # batch that is not an int is dynamic, and would be fixed by being counted.
        images = x.shape[0] if isinstance(x.shape[0], int) else 1
        logits: Tensor = self.model.encode_decode(x, [{'img_shape': x.shape[2:]}] * images)
        return logits


class _Detector(nn.Module):
    """Outputs of a single-stage detector's head at each level, before boxes are decoded."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors(self.model(x, mode='tensor')))


def tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts, in their order."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (tuple, list, dict)):
        for output in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from tensors(output)


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
    if getattr(model, 'bbox_head', None) is not None:
        return _Detector(model)
    raise UserError(
        f'{type(model).__name__} selects proposals in Python code that ONNX cannot hold: use '
        '--part backbone, or tools/export_detector.py for all of it'
    )


def name_of(module: nn.Module) -> str:
    """The classes that a part consists of, such as ``'SEResNet + PSPHead'``."""
    model = getattr(module, 'model', None)
    if model is None:
        return type(module).__name__
    parts = (
        getattr(model, name, None) for name in ('backbone', 'neck', 'decode_head', 'bbox_head')
    )
    return ' + '.join(_class(part) for part in parts if part is not None)


def _class(part: nn.Module) -> str:
    # The heads of a cascade are a list.
    parts = part if isinstance(part, nn.ModuleList) else [part]
    return ' + '.join(type(part).__name__ for part in parts)


def input_channels(module: nn.Module) -> int:
    """Number of channels of the images that a network takes, by its first convolution."""
    pixels = 1
    for layer in module.modules():
        if type(layer).__name__ == 'Focus':  # of YOLOX: 2x2 pixels become channels
            pixels = 4
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels // pixels
    return 3
