"""The networks that a benchmark compares: backbones by name, and a whole detector."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmse.benchmark.peers import import_peers
from mmse.engine.config.swap import swap_backbone
from mmse.models import SEResNet
from mmse.models.kernel_support import why_no_kernels
from mmse.models.settings import PRESETS
from mmse.utils.errors import UserError

PLAIN = 'mmdet.ResNet'
# Full attention: avg+max squeeze, softmax fusion, residual gating with a learned alpha.
FULL = 'mmse sepp_v2_residual'
BY_KERNELS = f'{FULL}, kernels'
# Which attention each detector has, and what else its backbone is given.
DETECTORS: dict[str, tuple[str | None, dict[str, Any]]] = {
    'plain': (None, {}),
    'se': ('se', {}),
    'full': ('sepp_v2_residual', {}),
    'full, kernels': ('sepp_v2_residual', {'fused': 'kernels'}),
    'full, recompute': ('sepp_v2_residual', {'recompute': 'norms'}),
}


def _timm(name: str, max_pool: bool, depth: int) -> nn.Module:
    import timm
    from timm.layers.squeeze_excite import SEModule

    extra: dict[str, Any] = {}
    if max_pool:
        extra['block_args'] = {'attn_layer': partial(SEModule, add_maxpool=True)}
    net: nn.Module = timm.create_model(
        f'{name}{depth}', features_only=True, out_indices=(1, 2, 3, 4), **extra
    )
    return net


def _mmpretrain(depth: int) -> nn.Module:
    from mmpretrain.models import SEResNet as Theirs

    net: nn.Module = Theirs(depth=depth, out_indices=(0, 1, 2, 3))
    return net


def _mmdet(depth: int) -> nn.Module:
    from mmdet.models import ResNet

    net: nn.Module = ResNet(depth=depth, norm_eval=False)
    return net


def _mmse(attention: Any, depth: int, **options: Any) -> nn.Module:
    return SEResNet(depth=depth, attention=attention, norm_eval=False, **options)


BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    PLAIN: _mmdet,
    'timm resnet': partial(_timm, 'resnet', False),
    'timm seresnet': partial(_timm, 'seresnet', False),
    'timm seresnet, max pool': partial(_timm, 'seresnet', True),
    'mmpretrain.SEResNet': _mmpretrain,
    'mmse none': partial(_mmse, None),
    **{f'mmse {preset}': partial(_mmse, preset) for preset in PRESETS},
    f'{FULL}, not fused': partial(_mmse, 'sepp_v2_residual', fused=False),
    BY_KERNELS: partial(_mmse, 'sepp_v2_residual', fused='kernels'),
    f"{FULL}, recompute='norms'": partial(_mmse, 'sepp_v2_residual', recompute='norms'),
    f"{FULL}, recompute='expand'": partial(_mmse, 'sepp_v2_residual', recompute='expand'),
}


def build_backbones(
    names: list[str] | None, depth: int, device: str = 'cpu', compiled: bool = False
) -> tuple[dict[str, nn.Module], list[str]]:
    """Backbones with four outputs each, seeded weights, and batch norms that train.

    Args:
        names: Which of ``BACKBONES`` to build, each by its name or by a part of names; None for
            all of them. ``PLAIN`` is always built.
        depth: 18, 34, 50, 101 or 152.
        device: Where they will be measured.
        compiled: Whether they will be compiled.

    Returns:
        The networks by name, and one sentence for each that could not be built.

    Raises:
        UserError: A name fits no network.
    """
    for name in names or ():
        if not any(_matches(name, known) for known in BACKBONES):
            raise UserError(f'--only {name}: there are {", ".join(BACKBONES)}')
    missing = import_peers()
    built, left_out = {}, []
    for name, build in BACKBONES.items():
        if names and name != PLAIN and not any(_matches(given, name) for given in names):
            continue
        package = name.split('.')[0].split()[0]
        if package in missing:
            left_out.append(f'{name}: {package} is not installed')
        elif package == 'mmpretrain' and depth < 50:
            left_out.append(f'{name}: it has no basic blocks')
        elif name == BY_KERNELS and (why := why_no_kernels(device, interpreted=False)):
            left_out.append(f'{name}: {why}')
        elif compiled and (name == BY_KERNELS or 'recompute' in name):
            left_out.append(f'{name}: compiled networks are composed of their modules')
        else:
            torch.manual_seed(0)
            built[name] = build(depth)
    return built, left_out


def _matches(given: str, name: str) -> bool:
    return given == name if given in BACKBONES else given in name


def build_detectors(
    depth: int, changes: Mapping[str, Any] = {}, names: Iterable[str] = ('plain', 'se', 'full')
) -> dict[str, nn.Module]:
    """mmdet's Faster R-CNN with FPN, plain and with attention, the first stage frozen as usual.

    The attention starts at the identity: all detectors compute the same function, so that their
    heads work on the same proposals.

    Args:
        depth: Depth of the backbone.
        changes: Changes to the configs of the backbones with attention.
        names: Which of ``DETECTORS``; ``'plain'`` first.
    """
    from mmse.engine.config import load_config

    detectors: dict[str, nn.Module] = {}
    for name in names:
        attention, own = DETECTORS[name]
        cfg = load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
        cfg.model.backbone.update(depth=depth, init_cfg=None)
        cfg.model.neck.in_channels = [256, 512, 1024, 2048] if depth >= 50 else [64, 128, 256, 512]
        if attention is not None:
            swap_backbone(cfg, attention)
            cfg.model.backbone.update({**own, **changes})
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmdet'):
            detector = MODELS.build(cfg.model)
            detector.init_weights()
        detectors[name] = detector
        if attention is not None:
            detector.load_state_dict(detectors['plain'].state_dict(), strict=False)
    return detectors


def detector_batch(batch: int, size: tuple[int, int], device: torch.device) -> dict[str, Any]:
    """Random images with five boxes each, in the form that a detector's preprocessor returns.

    Args:
        batch: Number of images.
        size: Height and width, pixels.
        device: Where the batch lies.
    """
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    height, width = size
    samples = []
    for _ in range(batch):
        corners = torch.rand(5, 2, 2, generator=generator).sort(1).values
        boxes = (corners * Tensor([width, height])).flatten(1)
        labels = torch.randint(80, (5,), generator=generator)
        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
        sample = DetDataSample(metainfo={**shapes, 'scale_factor': (1.0, 1.0)})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample.to(device))
    images = torch.randn(batch, 3, height, width, generator=generator).to(device)
    return {'inputs': images, 'data_samples': samples}
