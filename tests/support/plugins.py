"""Plugins and deformable convolutions of MMCV, as the tests of mmdet and mmseg put them in."""

from typing import Any

DCN = {'type': 'DCN', 'deform_groups': 1, 'fallback_on_stride': False}
CONTEXT = {'type': 'ContextBlock', 'ratio': 1 / 16}
GENERALIZED = {
    'type': 'GeneralizedAttention',
    'spatial_range': -1,
    'num_heads': 8,
    'attention_type': '0010',
    'kv_stride': 2,
}
NON_LOCAL = {'type': 'NonLocal2d'}


def plugin(cfg: dict[str, Any], position: int, **more: Any) -> dict[str, Any]:
    """A plugin after the convolution of this number."""
    return {'cfg': cfg, 'position': f'after_conv{position}', **more}
