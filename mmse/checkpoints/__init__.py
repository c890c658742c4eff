"""Files of weights: reading them safely, finding the right one, and converting them.

Importing this package makes MMEngine's loaders read through it.
"""

import mmse.checkpoints.torchvision_names  # noqa: F401 (registers a loader)
from mmse.checkpoints.safe_load import allow_mmengine_globals, read_checkpoint

__all__ = ['allow_mmengine_globals', 'read_checkpoint']
