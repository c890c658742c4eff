"""ONNX files that agree with their network in onnxruntime, or are not written."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn

from mmse.export.any_size import mmseg_resizes_to_any_size, with_pooling_for_any_size
from mmse.export.parts import input_channels, name_of, tensors
from mmse.utils.dependencies import require_torch
from mmse.utils.errors import UserError
from mmse.utils.files import replacing

TOLERANCE = 1e-4
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
ADVICE = '; a file for one size may be possible: give one to --sizes'
AXES = {0: 'batch', 2: 'height', 3: 'width'}
Size = tuple[int, int, int]  # batch, height, width
Outputs = Mapping[Size, Sequence[Tensor]]


def export_onnx(
    module: nn.Module, path: Path, sizes: Sequence[Size], fold: bool
) -> dict[Size, float]:
    """Write a module as ONNX, and compare the file with the module in onnxruntime.

    A dimension in which the sizes differ is dynamic in the file; every other one is fixed. What is
    dynamic is traced, and compared, at a size of its own that strides do not divide, so that
    paddings come into the graph; if the module does not take it, the first size is traced.

    Args:
        module: In eval mode; ``fold`` changes it.
        path: The file, which appears only if it agrees with the module.
        sizes: Sizes of the random images to compare on.
        fold: Fold each batch norm into the convolution before it, and constants into each other.

    Returns:
        The relative difference at each size, see ``parity``.

    Raises:
        UserError: A package that the export needs is missing, the module does not take one of the
            sizes, it cannot be written, or the file does not agree with it.
    """
    require_torch('2.6', 'exporting to ONNX')
    for package in PACKAGES:
        if find_spec(package) is None:
            raise UserError(f"exporting needs {package}: pip install 'mmse[onnx]'")
    dynamic = _dynamic_axes(sizes)
    wanted = {size: _outputs(module, size) for size in sizes}
    traced = sizes[0]
    if dynamic:
        odd = _odd_size(sizes, dynamic)
        try:
            wanted[odd] = _outputs(module, odd)
            traced = odd
        except UserError:  # such as a network that needs multiples of 16
            pass
    if fold:
        fuse_conv_bn(module)
    with replacing(path) as part:
        _write(module, part, traced, dynamic, fold)
        differences = parity(part, module, wanted)
        _check(module, differences, traced)
    return differences


def parity(file: Path, module: nn.Module, wanted: Outputs) -> dict[Size, float]:
    """How far the outputs of an ONNX file in onnxruntime are from those that are wanted.

    Args:
        file: The ONNX file.
        module: What was exported.
        wanted: For each size the outputs that belong to its random images.

    Returns:
        For each size the largest difference of an output over its largest absolute value, the
        worst of all outputs; infinite if onnxruntime refuses the file or the images, or gives
        outputs of another shape.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the one who asked is told what it refuses
    try:
        session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    except Exception:  # onnxruntime has a class of errors for each of its status codes
        return dict.fromkeys(wanted, math.inf)
    differences = {}
    for size, outputs in wanted.items():
        try:
            found = session.run(None, {'images': _images(module, size).numpy()})
        except Exception:
            differences[size] = math.inf
        else:
            differences[size] = _difference(found, outputs)
    return differences


def _difference(found: Sequence[np.ndarray], wanted: Sequence[Tensor]) -> float:
    if [output.shape for output in found] != [tuple(output.shape) for output in wanted]:
        return math.inf
    pairs = ((torch.from_numpy(a).double(), b.double()) for a, b in zip(found, wanted, strict=True))
    # An output of zeros has the difference 0 to one of zeros.
    relative = [(a - b).abs().max() / b.abs().max().clamp(1e-30) for a, b in pairs]
    return float(torch.stack(relative).max())  # NaN if there is one


def _dynamic_axes(sizes: Sequence[Size]) -> dict[int, str]:
    """The dimensions of the images in which sizes differ, and their names."""
    columns = zip(*sizes, strict=True)
    return {
        axis: name
        for (axis, name), column in zip(AXES.items(), columns, strict=True)
        if len(set(column)) > 1
    }


def _odd_size(sizes: Sequence[Size], dynamic: dict[int, str]) -> Size:
    """A size of its own in what is dynamic, odd if the smallest height and width are even."""
    batch, height, width = map(min, zip(*sizes, strict=True))
    return batch + (0 in dynamic), height + 33 * (2 in dynamic), width + 65 * (3 in dynamic)


def _images(module: nn.Module, size: Size) -> Tensor:
    batch, height, width = size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, input_channels(module), height, width, generator=generator)


def _outputs(module: nn.Module, size: Size) -> list[Tensor]:
    """What the module gives for the random images of a size."""
    try:
        with torch.no_grad():
            outputs = list(tensors(module(_images(module, size))))
    except Exception as error:  # each network has errors of its own for it
        raise UserError(
            f'{name_of(module)} does not take {_text(module, size)}: {_reason(error)}'
        ) from error
    if not outputs:
        raise UserError(f'{name_of(module)} gives no tensors, which ONNX needs')
    return outputs


def _write(
    module: nn.Module, path: Path, traced: Size, dynamic: dict[int, str], fold: bool
) -> None:
    batch, height, width = traced
    # torch takes a dynamic dimension of 1 for a fixed one.
    images = _images(module, (max(batch, 2) if 0 in dynamic else batch, height, width))
    try:
        with mmseg_resizes_to_any_size():
            program = torch.export.export(
                module,
                (images,),
                dynamic_shapes=(dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC),),
                strict=False,
            )
        torch.onnx.export(
            with_pooling_for_any_size(program),
            f=path,
            dynamo=True,
            input_names=['images'],
            dynamic_shapes=(dynamic,),
            external_data=False,
            optimize=fold,
            verbose=False,
        )
    except Exception as error:  # torch, onnxscript and the network raise what they like
        sentence = f'no file was written: torch cannot put {name_of(module)} into one'
        if isinstance(error, torch._dynamo.exc.UserError) and dynamic:
            sentence += f' for any {_and(dynamic)}, since its code fixes them'
        else:
            sentence += f' ({_reason(error)})'
        raise UserError(sentence + (ADVICE if dynamic else '')) from error


def _check(module: nn.Module, differences: dict[Size, float], traced: Size) -> None:
    """Refuse a file that does not agree with its module at every size."""
    # NaN is not below the tolerance either.
    wrong = [size for size, relative in differences.items() if not relative <= TOLERANCE]
    if not wrong:
        return
    size = traced if traced in wrong else wrong[0]
    runs = zip(_outputs(module, size), _outputs(module, size), strict=True)
    if not all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in runs):
        raise UserError(
            f'no file was written: {name_of(module)} gives other outputs each time, so nothing can '
            'be compared with it'
        )
    found = (
        'fails in onnxruntime or gives outputs of another shape'
        if math.isinf(differences[size])
        else f'differs from it by {differences[size]:.1e}, not at most {TOLERANCE:g}'
    )
    sentence = (
        f'no file was written: at {_text(module, size)} the file of {name_of(module)} {found}'
    )
    if size != traced:
        sentence += f', since its graph holds the size that was traced{ADVICE}'
    raise UserError(sentence)


def _text(module: nn.Module, size: Size) -> str:
    batch, height, width = size
    return f'{batch}x{input_channels(module)}x{height}x{width}'


def _and(dynamic: dict[int, str]) -> str:
    *names, last = dynamic.values()
    return f'{", ".join(names)} and {last}' if names else last


def _reason(error: Exception) -> str:
    """The line of an error that says most: the first of what caused it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if 'data pointer' in line or 'data is not allocated' in line:
        return 'it calls a compiled operator that torch does not know, such as one of mmcv'
    return line
