"""Modules of a block's tail that are changed in place: the fused tail computes as they would."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.mutations import assert_equal, measure, pair
from torch import Tensor, nn

from mmse.models import ChannelAttention, SEResNet
from mmse.models.residual import ResidualBlock

pytestmark = pytest.mark.usefixtures('single_thread')


def blocks(net: SEResNet) -> list[ResidualBlock]:
    return [block for stage in net.stages.values() for block in stage]


def last_norms(net: SEResNet) -> list[nn.BatchNorm2d]:
    return [block.norm(block.last) for block in blocks(net)]


def set_on_norms(**values: Any) -> Callable[[SEResNet], None]:
    def change(net: SEResNet) -> None:
        for norm in last_norms(net):
            for name, value in values.items():
                setattr(norm, name, value)

    return change


def freeze_on_norms(name: str) -> Callable[[SEResNet], None]:
    def change(net: SEResNet) -> None:
        for norm in last_norms(net):
            getattr(norm, name).requires_grad_(False)

    return change


class Kept(nn.Module):
    """An attention that keeps what it returned, and a copy of that."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        self.given_copy = x.clone()
        self.kept = self.inner(x)
        self.copy = self.kept.clone()
        return self.kept


def keep_outputs(net: SEResNet) -> None:
    for block in blocks(net):
        block.attention = Kept(block.attention)


def share_layers(net: SEResNet) -> None:
    net.layer1[1].attention.fc1 = net.layer1[0].attention.fc1
    net.layer1[1].attention.fc2.weight = net.layer1[0].attention.fc2.weight


def tie_within_one(net: SEResNet) -> None:
    for block in blocks(net):
        layers = block.attention
        layers.fc1 = nn.Linear(layers.in_channels, layers.in_channels).double()
        layers.fc1.load_state_dict(
            {k: torch.ones_like(v) / 9 for k, v in layers.fc1.state_dict().items()}
        )
        layers.fc2 = layers.fc1


def hold_alpha(net: SEResNet) -> None:
    for block in blocks(net):
        del block.attention.alpha
        block.attention.alpha = 0.7


def clamp_drop_path(net: SEResNet) -> None:
    for block in blocks(net):
        block.drop_path = nn.Hardtanh(-0.1, 0.1)


def hook_drop_path(net: SEResNet) -> None:
    for block in blocks(net):
        block.drop_path.register_forward_hook(lambda module, inputs, output: output * 2)


def hook_backward(kind: str) -> Callable[[SEResNet], None]:
    def change(net: SEResNet) -> None:
        for block in blocks(net):
            getattr(block.attention, kind)(
                lambda module, *grads: tuple(None if g is None else 2 * g for g in grads[0])
            )

    return change


CHANGES: dict[str, Callable[[SEResNet], None]] = {
    'no momentum': set_on_norms(momentum=None),
    'momentum 0': set_on_norms(momentum=0.0),
    'another eps': set_on_norms(eps=0.1),
    'not tracked': set_on_norms(track_running_stats=False),
    'without statistics': set_on_norms(running_mean=None, running_var=None),
    'without a counter': set_on_norms(num_batches_tracked=None),
    'weight frozen': freeze_on_norms('weight'),
    'bias frozen': freeze_on_norms('bias'),
    'outputs kept': keep_outputs,
    'layers shared': share_layers,
    'one layer twice': tie_within_one,
    'alpha held': hold_alpha,
    'drop path replaced': clamp_drop_path,
    'drop path hooked': hook_drop_path,
    'full backward hooks': hook_backward('register_full_backward_hook'),
    'full backward pre-hooks': hook_backward('register_full_backward_pre_hook'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_fused_equals_composed(name: str) -> None:
    nets = pair()
    for net in nets:
        CHANGES[name](net)
    x = torch.randn(2, 3, 64, 64).double()
    assert_equal(*(measure(net, x) for net in nets))
    with torch.no_grad():
        for got, want in zip(*(net.eval()(x) for net in nets), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize('fused', [True, False])
def test_what_an_attention_keeps_is_not_overwritten(fused: bool) -> None:
    net = pair()[not fused]
    keep_outputs(net)
    with torch.no_grad():
        net.eval()(torch.randn(2, 3, 64, 64).double())
    for block in blocks(net):
        assert torch.equal(block.attention.kept, block.attention.copy)
        assert torch.equal(block.attention.given, block.attention.given_copy)


@pytest.mark.parametrize('attention', ['se', None])
def test_what_hooks_keep_is_not_overwritten(attention: Any) -> None:
    net = pair(attention=attention)[0].eval()
    kept: list[tuple[Tensor, Tensor]] = []
    for module in net.modules():
        if isinstance(module, ChannelAttention) or module in last_norms(net):
            module.register_forward_hook(lambda m, i, out: kept.append((out, out.clone())))
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64).double())
    assert len(kept) == (16 if attention else 8)
    assert all(torch.equal(out, copy) for out, copy in kept)


def test_outputs_can_be_changed_in_place() -> None:
    """As those of a ReLU, which autograd allows until the gradient is asked for."""
    x = torch.randn(2, 8, 9, 9).double()
    fused, composed = (net.layer1[0](x).mul_(2) for net in pair())
    torch.testing.assert_close(fused, composed, rtol=1e-10, atol=1e-10)
    for out in (fused, composed):
        with pytest.raises(RuntimeError, match='modified by an inplace operation'):
            out.sum().backward()


def test_a_norm_for_other_dimensions_refuses() -> None:
    for net in pair():
        for block in blocks(net):
            setattr(
                block, block.last_norm_name, nn.BatchNorm1d(block.last_conv.out_channels).double()
            )
        with pytest.raises(ValueError, match='expected 2D or 3D input'):
            net(torch.randn(2, 3, 64, 64).double())
