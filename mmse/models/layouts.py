"""Which package a checkpoint comes from, and its keys translated to our names and back.

ResNet checkpoints differ in the names of attention, deep stem and shortcuts:

=========== ============================== ============================= =======================
layout      attention of a block           deep stem                     found in
=========== ============================== ============================= =======================
plain       none                           ``stem.I``                    torchvision, mmdet, mmseg
mmse        ``attention.fc1``, ``.fc2``    ``stem.I``                    this package
mmpretrain  ``se_layer.conv1.conv``, ...   ``stem.I.conv``, ``.bn``      mmpretrain
timm        ``se.fc1``, ``se.fc2``         ``conv1.I`` and ``bn1``       timm
=========== ============================== ============================= =======================

With ``avg_down`` the shortcut's convolution and norm are number 1 and 2, after the pooling.
mmpretrain has no pooling in shortcuts of stride 1, so there they are number 0 and 1.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from mmse.models.keys import Key, parse
from mmse.utils.errors import UserError

T = TypeVar('T')

_MARKS = {
    'mmse': r'layer\d\.\d+\.attention\.(?!_extra_state)',
    'mmpretrain': r'layer\d\.\d+\.se_layer\.conv1\.conv\.|stem\.0\.conv\.',
    'timm': r'layer\d\.\d+\.se\.fc1\.|conv1\.0\.',
}

# Modules of a block, and of the deep stem, by our names.
_ATTENTION = {
    'mmpretrain': {f'attention.fc{i}': f'se_layer.conv{i}.conv' for i in (1, 2)},
    'timm': {f'attention.fc{i}': f'se.fc{i}' for i in (1, 2)},
}
_DEEP_STEM = {
    'mmpretrain': {
        f'stem.{3 * i + j}': f'stem.{i}.{part}'
        for i in range(3)
        for j, part in enumerate(('conv', 'bn'))
    },
    'timm': {**{f'stem.{i}': f'conv1.{i}' for i in (0, 1, 3, 4, 6)}, 'stem.7': 'bn1'},
}


def detect_layout(keys: Mapping[str, T]) -> str:
    """The layout of a ResNet's keys: 'mmse', 'mmpretrain', 'timm' or 'plain'.

    Raises:
        UserError: They are not the keys of a ResNet.
    """
    for layout, mark in _MARKS.items():
        if any(re.match(mark, key) for key in keys):
            return layout
    if any(parse(key).in_backbone for key in keys):
        return 'plain'
    first = ', '.join(list(keys)[:3])
    raise UserError(f'these are not the weights of a ResNet: the first keys are {first or "none"}')


def to_mmse(weights: Mapping[str, T]) -> tuple[str, dict[str, T]]:
    """Tell the layout of a backbone's weights, and rename the weights to ours."""
    layout = detect_layout(weights)
    if layout not in _ATTENTION:
        return layout, {key: _as_layer(key, value) for key, value in weights.items()}
    shifted = [i for i in range(1, 5) if f'layer{i}.0.downsample.0.weight' in weights]
    modules = {v: k for k, v in _modules(layout, weights, shifted).items()}
    parts = {v: k for k, v in _ATTENTION[layout].items()}
    renamed = _rename(weights, modules, parts)
    return layout, {key: _as_layer(key, value) for key, value in renamed.items()}


def from_mmse(weights: Mapping[str, T], layout: str) -> dict[str, T]:
    """Rename a backbone's weights from our names to those of a layout.

    Args:
        weights: Weights under our names; a key that the layout has no name for stays, and records
            of an attention's settings are left out.
        layout: 'mmse', 'mmpretrain', 'timm' or 'plain'. For mmpretrain the strides are assumed to
            be (1, 2, 2, 2), its default.
    """
    if layout not in _ATTENTION:
        return dict(weights)
    weights = {k: _as_convolution(k, v) for k, v in weights.items() if not parse(k).is_record}
    return _rename(weights, _modules(layout, weights, (1,)), _ATTENTION[layout])


def _is_excitation(key: str) -> bool:
    return parse(key).attention in ('fc1.weight', 'fc2.weight')


def _as_layer(key: str, value: Any) -> Any:
    """The excitation's layers, which other packages have as 1x1 convolutions, as linear layers."""
    if isinstance(value, Tensor) and value.ndim == 4 and _is_excitation(key):
        return value.flatten(1)
    return value


def _as_convolution(key: str, value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 2 and _is_excitation(key):
        return value[:, :, None, None]
    return value


def _modules(layout: str, weights: Mapping[str, T], shifted: Iterable[int]) -> dict[str, str]:
    """Stem and shortcuts, ours to theirs; ``shifted``: stages whose shortcut has no pooling."""
    modules: dict[str, str] = {}
    if any(key.startswith(('stem.', 'conv1.0.')) for key in weights):
        modules |= _DEEP_STEM[layout]
    if layout == 'mmpretrain' and any('.downsample.2.' in key for key in weights):
        for i in shifted:
            shortcut = f'layer{i}.0.downsample'
            modules |= {f'{shortcut}.{j + 1}': f'{shortcut}.{j}' for j in (0, 1)}
    return modules


def _rename(
    weights: Mapping[str, T], modules: Mapping[str, str], parts: Mapping[str, str]
) -> dict[str, T]:
    """Rename whole modules, and parts of blocks."""
    renamed = {}
    for key, value in weights.items():
        block, module, tensor = parse(key)
        whole = f'{block}.{module}' if block else module
        if whole in modules:
            renamed[f'{modules[whole]}.{tensor}'] = value
        else:
            renamed[str(Key(block, parts.get(module, module) if block else module, tensor))] = value
    return renamed
