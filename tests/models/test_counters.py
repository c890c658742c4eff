"""Tools that go by the type of a module, or hook every module, see the whole network."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from mmse.models import SEResNet

SMALL = {'depth': 18, 'base_channels': 8, 'attention': 'se'}
IMAGES = torch.randn(2, 3, 64, 64)


def by_type(net: nn.Module) -> Iterator[tuple[nn.Module, dict[str, int]]]:
    """Count as thop and ptflops do: hooks on modules whose type is in a table."""
    for module in net.modules():
        if type(module) in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
            seen: dict[str, int] = {'macs': 0}

            def hook(module: nn.Module, inputs: Any, out: Tensor, seen: dict = seen) -> None:
                if isinstance(module, nn.Conv2d):
                    batch, _, height, width = out.shape
                    seen['macs'] += batch * height * width * module.weight.numel()
                elif isinstance(module, nn.Linear):
                    seen['macs'] += out.numel() * module.in_features

            module.register_forward_hook(hook)
            yield module, seen


@pytest.mark.parametrize('fused', [True, False])
def test_counting_by_type(fused: bool) -> None:
    net = SEResNet(**SMALL, fused=fused).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        SEResNet(**SMALL, fused=False).eval()(IMAGES)
    counted = list(by_type(net))
    net(IMAGES)
    assert 2 * sum(seen['macs'] for _, seen in counted) == counter.get_total_flops()
    parameters = sum(p.numel() for m, _ in counted for p in m.parameters())
    assert parameters == sum(p.numel() for p in net.parameters())
    excitations = [seen['macs'] for m, seen in counted if isinstance(m, nn.Linear)]
    assert len(excitations) == 16 and min(excitations) > 0


class LowRank(nn.Module):
    """A convolution with an update of low rank beside it, which takes maps alone."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        _batch, _channels, _height, _width = x.shape
        return self.conv(x)


@pytest.mark.parametrize('fused', [True, False])
def test_replacing_convolutions_by_type(fused: bool) -> None:
    net = SEResNet(**SMALL, fused=fused).eval()
    want = net(IMAGES)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, LowRank(child))
    for got, other in zip(net(IMAGES), want, strict=True):
        torch.testing.assert_close(got, other)


def test_spectral_norm_of_every_layer() -> None:
    net = SEResNet(**SMALL).double().eval()
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrizations.spectral_norm(module)
    out = net.train()(IMAGES.double())[-1]
    out.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for _, block in net.attention_blocks():
        largest = torch.linalg.matrix_norm(block.attention.fc1.weight, 2)
        torch.testing.assert_close(largest, torch.ones_like(largest), rtol=0.2, atol=0)
