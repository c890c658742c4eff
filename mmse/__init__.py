"""Channel attention for dense tasks: SE-ResNet backbones for every OpenMMLab codebase."""

from mmse.dependencies import check
from mmse.version import __version__

check(('torch', 'mmengine', 'mmcv'))

__all__ = ['__version__']
