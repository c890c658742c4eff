"""Channel attention for dense tasks: SE-ResNet backbones for every OpenMMLab codebase."""

from mmse.dependencies import check
from mmse.version import __version__

check(('torch', 'mmengine', 'mmcv'))

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402 (needs what was just checked)

from mmse.shipped import config_path  # noqa: E402
from mmse.swap import swap_backbone  # noqa: E402

__all__ = ['__version__', 'config_path', 'swap_backbone']

# What MMEngine's own lookup, mmengine.hub.get_config('mmse::FOLDER/NAME.py'), asks.
MODULE2PACKAGE['mmse'] = 'mmse'
