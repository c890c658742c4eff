"""Whose checkpoint it is, and its keys under our names.

ResNet checkpoints differ in where the attention and the deep stem stand:

=========== ============================== ============================= =======================
layout      attention of a block           deep stem                     found in
=========== ============================== ============================= =======================
plain       none                           ``stem.I``                    torchvision, mmdet, mmseg
mmse        ``attention.fc1``, ``.fc2``    ``stem.I``                    this package
mmpretrain  ``se_layer.conv1.conv``, ...   ``stem.I.conv``, ``.bn``      mmpretrain
timm        ``se.fc1``, ``se.fc2``         ``conv1.I`` and ``bn1``       timm
=========== ============================== ============================= =======================
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from mmse.errors import UserError

T = TypeVar('T')

_MARKS = {
    'mmse': r'layer\d\.\d+\.attention\.fc1\.',
    'mmpretrain': r'layer\d\.\d+\.se_layer\.conv1\.conv\.|stem\.0\.conv\.',
    'timm': r'layer\d\.\d+\.se\.fc1\.|conv1\.0\.',
    'plain': r'layer1\.0\.conv1\.',
}


def _mmpretrain(key: str) -> str:
    key = re.sub(r'\.se_layer\.conv([12])\.conv\.', r'.attention.fc\1.', key)
    if match := re.match(r'stem\.(\d)\.(conv|bn)\.(.*)', key):
        index = 3 * int(match[1]) + (match[2] == 'bn')
        key = f'stem.{index}.{match[3]}'
    return key


def _timm(key: str) -> str:
    return re.sub(r'\.se\.fc([12])\.', r'.attention.fc\1.', key)


def _timm_deep(key: str) -> str:
    # timm's stem is conv, bn, act, conv, bn, act, conv in conv1, then bn1.
    key = re.sub(r'^conv1\.(\d)\.', r'stem.\1.', key)
    return _timm(re.sub(r'^bn1\.', 'stem.7.', key))


def detect_layout(keys: Mapping[str, T]) -> str:
    """The layout of a ResNet's keys: 'mmse', 'mmpretrain', 'timm' or 'plain'.

    Raises:
        UserError: They are not the keys of a ResNet.
    """
    for layout, mark in _MARKS.items():
        if any(re.match(mark, key) for key in keys):
            return layout
    first = ', '.join(list(keys)[:3])
    raise UserError(f'these are not the weights of a ResNet: the first keys are {first or "none"}')


def to_mmse(weights: Mapping[str, T]) -> tuple[str, dict[str, T]]:
    """The layout of a backbone's weights, and the weights under our names."""
    layout = detect_layout(weights)
    if layout == 'mmpretrain':
        rename = _mmpretrain
    elif layout == 'timm':
        rename = _timm_deep if 'conv1.0.weight' in weights else _timm
    else:
        return layout, dict(weights)
    return layout, {rename(key): value for key, value in weights.items()}
