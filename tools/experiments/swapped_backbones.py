"""A ResNet of any OpenMMLab package and the backbone that takes its place: the same function?"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from mmcv.ops import ModulatedDeformConv2d as DeformConv
from mmengine.registry import MODELS
from torch import Tensor, nn

FAMILY = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
# Larger for deformable convolutions: MMCV's need 3 pixels or more in the last stage.
SIZE, DCN_SIZE = 64, 96


def family(
    node: Any, key: str = 'model', scope: str | None = None
) -> Iterator[tuple[str, Any, str | None]]:
    """Every dict whose type names a ResNet, of whatever package.

    Yields:
        The key that holds it, the dict, and the scope that ``_scope_`` around it sets.
    """
    if isinstance(node, Mapping):
        scope = node.get('_scope_', scope)
        kind = node.get('type')
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        if name.rpartition('.')[2] in FAMILY:
            yield key, node, scope
        for inner, value in node.items():
            yield from family(value, inner, scope)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from family(value, key, scope)


def setting(backbone: Mapping[str, Any]) -> str:
    """The settings that shape the network; how it is initialised and synchronised does not."""
    rest = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
    return json.dumps(rest, sort_keys=True).replace('SyncBN', 'BN')


def fill(net: nn.Module) -> None:
    """Give a network weights and statistics of which no two are alike and none is constant.

    Those of convolutions are cut out of the same drawn numbers, each from another place, because
    drawing all of them takes long.
    """
    drawn, start = torch.randn(999_983), 0
    for name, param in net.named_parameters():
        if param.dim() < 2:
            param.normal_(1.0 if name.endswith('weight') else 0.0, 0.1)
        else:
            needed = start + param.numel()
            numbers = drawn if needed <= len(drawn) else drawn.repeat(1 + needed // len(drawn))
            numbers = numbers[start:needed]
            param.copy_(numbers.view_as(param) * param[0].numel() ** -0.5)
            start = (start + 7919) % len(drawn)
    for name, buffer in net.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)


def build(settings: Mapping[str, Any], *, as_given: bool = False, **changes: Any) -> nn.Module:
    """Build a backbone, in eval mode, whose weights hold nothing yet: they are to be replaced.

    Args:
        settings: Its settings, with its type.
        as_given: Keep what they say of initial weights; otherwise there is no such thing.
        **changes: Settings that differ.
    """
    settings = {**copy.deepcopy(dict(settings)), **changes}
    if not as_given:
        settings['init_cfg'] = None
        settings.pop('pretrained', None)
    # Without a process group SyncBN is BN in training too.
    settings = json.loads(json.dumps(settings).replace('SyncBN', 'BN'))
    drawn_by_dcn = nullcontext() if as_given else mock.patch.object(DeformConv, 'init_weights')
    with mock.patch('torch.nn.init.kaiming_uniform_'), drawn_by_dcn:
        net: nn.Module = MODELS.build(settings)
    net.eval()  # mmdet's returns None
    return net


class Pair:
    """An original backbone with drawn weights, its input, and its feature maps.

    Args:
        original: Settings of the original, with its type.
        swapped: Settings of the backbone that takes its place.

    Attributes:
        theirs: The original.
        x: Images, (1, in_channels, 64, 64), or 96 x 96 with deformable convolutions.
        want: What the original makes of them.
    """

    def __init__(self, original: Mapping[str, Any], swapped: Mapping[str, Any]) -> None:
        self.swapped = swapped
        self.theirs = build(original)
        size = DCN_SIZE if original.get('dcn') else SIZE
        self.x = torch.randn(1, original.get('in_channels', 3), size, size)
        with torch.no_grad():
            fill(self.theirs)
            self.want: tuple[Tensor, ...] = self.theirs(self.x)

    def equal(self) -> bool:
        """Whether the swapped backbone gives the same maps, to the bit, without attention."""
        ours = build(self.swapped, attention=None)
        ours.load_state_dict(self.theirs.state_dict(), assign=True)
        with torch.no_grad():
            got = ours(self.x)
        return len(got) == len(self.want) and all(map(torch.equal, got, self.want))
