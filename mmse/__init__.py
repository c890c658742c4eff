"""Channel attention for dense tasks: SE-ResNet backbones for every OpenMMLab codebase."""

from mmse.dependencies import check
from mmse.version import __version__

check(('torch', 'mmengine', 'mmcv'))

from mmse.swap import swap_backbone  # noqa: E402 (needs what was just checked)

__all__ = ['__version__', 'swap_backbone']
