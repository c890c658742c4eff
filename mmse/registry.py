"""The scope ``mmse``: child registries of MMEngine's roots.

MMEngine imports ``<scope>.registry`` when it meets an unknown scope, so ``type='mmse.SEResNet'``
resolves from any OpenMMLab config without ``custom_imports``; ``locations`` then import the
modules that register themselves here.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmse', locations=['mmse.models'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmse', locations=['mmse.datasets.builtin']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmse', locations=['mmse.hooks'])
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmse', locations=['mmse.datasets.colours']
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='mmse', locations=['mmse.datasets.coco_metric']
)
