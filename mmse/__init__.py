"""Channel attention for dense tasks: SE-ResNet backbones for every OpenMMLab codebase."""

from mmse.utils import threads
from mmse.utils.dependencies import check
from mmse.version import __version__

threads.shorten_waits()  # before torch is imported
check(('torch', 'mmengine', 'mmcv'))

# After the check, because they import what it checks. With the first, MMEngine's loaders are safe.
from mmse.checkpoints import allow_mmengine_globals  # noqa: E402
from mmse.engine.config import config_path, swap_backbone  # noqa: E402
from mmse.engine.predictor import Predictor, load_model  # noqa: E402

__all__ = [
    'Predictor',
    '__version__',
    'allow_mmengine_globals',
    'config_path',
    'load_model',
    'swap_backbone',
]
