"""Whatever a user does to a model, the fused tail computes what the modules would."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.utils.parametrizations as parametrizations
from support.mutations import assert_equal, measure, pair
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune

from mmse.models import ChannelAttention, SEResNet
from mmse.models.residual import ResidualBlock

pytestmark = pytest.mark.usefixtures('single_thread')


def of_kind(net: nn.Module, kind: type[nn.Module]) -> list[tuple[nn.Module, str]]:
    """Every child of a kind, by its parent and its name."""
    return [
        (parent, name)
        for parent in net.modules()
        for name, child in parent.named_children()
        if type(child) is kind
    ]


def replace_all(kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> Callable:
    def mutate(net: SEResNet) -> None:
        for parent, name in of_kind(net, kind):
            setattr(parent, name, make(getattr(parent, name)))

    return mutate


def attentions(net: SEResNet) -> list[ChannelAttention]:
    return [block.attention for _, block in net.attention_blocks()]


class Lora(nn.Module):
    """A linear layer with a low-rank update, as packages of that name put it in."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.full((1, layer.in_features), 0.1).double())
        self.up = nn.Parameter(torch.full((layer.out_features, 1), 0.1).double())

    def forward(self, s: Tensor) -> Tensor:
        return self.layer(s) + s @ self.down.t() @ self.up.t()


class Squeeze(nn.Module):
    """An attention of somebody else."""

    def __init__(self, _: nn.Module) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Guided(torch.autograd.Function):
    """A ReLU that lets positive gradients through only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0) * (grad > 0)


class GuidedReLU(nn.Module):
    def __init__(self, _: nn.Module) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return Guided.apply(x)


def hold_gates(net: SEResNet) -> None:
    for attention in attentions(net):
        attention.gate = lambda a, b: torch.full_like(a, 0.3)


def detach_gates(net: SEResNet) -> None:
    for attention in attentions(net):
        attention.gate = lambda a, b, m=attention: ChannelAttention.gate(m, a, b).detach()


def hook_excitations(net: SEResNet) -> None:
    for attention in attentions(net):
        attention.fc2.register_forward_hook(lambda module, inputs, output: output * 2)


def hook_norms(net: SEResNet) -> None:
    for parent, name in of_kind(net, nn.BatchNorm2d):
        getattr(parent, name).register_forward_hook(lambda module, inputs, output: output + 1)


def scale_gradients(net: SEResNet) -> None:
    for attention in attentions(net):
        for parameter in attention.parameters():
            parameter.register_hook(lambda grad: grad * 3)


def freeze_attention(net: SEResNet) -> None:
    for attention in attentions(net):
        attention.requires_grad_(False)


def freeze_norms(net: SEResNet) -> None:
    for parent, name in of_kind(net, nn.BatchNorm2d):
        getattr(parent, name).requires_grad_(False)


def freeze_branches(net: SEResNet) -> None:
    for name, parameter in net.named_parameters():
        parameter.requires_grad_('.attention.' in name)


def constrain_weights(net: SEResNet) -> None:
    for attention in attentions(net):
        parametrizations.weight_norm(attention.fc1)


def constrain_norms(net: SEResNet) -> None:
    for parent, name in of_kind(net, nn.BatchNorm2d):
        parametrizations.weight_norm(getattr(parent, name), dim=None)


def prune_excitations(net: SEResNet) -> None:
    for attention in attentions(net):
        prune.l1_unstructured(attention.fc1, 'weight', amount=0.5)


def patch_forward(net: SEResNet) -> None:
    for attention in attentions(net):
        attention.forward = lambda x: x * 0.25


def cut_last_block(net: SEResNet) -> None:
    net.layer3[1] = nn.Identity()


def cut_last_stage(net: SEResNet) -> None:
    net.layer4 = nn.Identity()


MUTATIONS: dict[str, Callable[[SEResNet], None]] = {
    'relu SiLU': replace_all(nn.ReLU, lambda _: nn.SiLU()),
    'relu LeakyReLU': replace_all(nn.ReLU, lambda _: nn.LeakyReLU(0.1)),
    'relu ReLU6': replace_all(nn.ReLU, lambda _: nn.ReLU6()),
    'relu guided': replace_all(nn.ReLU, GuidedReLU),
    'attention Identity': replace_all(ChannelAttention, lambda _: nn.Identity()),
    'attention foreign': replace_all(ChannelAttention, Squeeze),
    'linear LoRA': replace_all(nn.Linear, Lora),
    'norm GroupNorm': replace_all(
        nn.BatchNorm2d, lambda norm: nn.GroupNorm(2, norm.num_features).double()
    ),
    'gate held': hold_gates,
    'gate detached': detach_gates,
    'hooks on excitations': hook_excitations,
    'hooks on norms': hook_norms,
    'hooks on parameters': scale_gradients,
    'attention frozen': freeze_attention,
    'norms frozen': freeze_norms,
    'branches frozen': freeze_branches,
    'weights parametrised': constrain_weights,
    'norms parametrised': constrain_norms,
    'excitations pruned': prune_excitations,
    'forward patched': patch_forward,
    'a block cut': cut_last_block,
    'a stage cut': cut_last_stage,
    'nothing': lambda net: None,
}


@pytest.mark.parametrize('name', MUTATIONS)
def test_fused_equals_composed(name: str) -> None:
    nets = pair()
    for net in nets:
        MUTATIONS[name](net)
        repr(net)
    x = torch.randn(2, 3, 32, 32).double()
    assert_equal(*(measure(net, x) for net in nets))
    with torch.no_grad():
        for got, want in zip(*(net.eval()(x) for net in nets), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize('seed', range(8))
def test_several_mutations_in_any_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(MUTATIONS), generator=generator)[:3].tolist()
    names = [list(MUTATIONS)[i] for i in order]
    nets = pair()
    for net in nets:
        for name in names:
            MUTATIONS[name](net)
        if seed % 2:
            net.float().double()
        net.load_state_dict(net.state_dict())
    nets = tuple(copy.deepcopy(net) for net in nets) if seed % 3 == 0 else nets
    x = torch.randn(2, 3, 32, 32).double()
    assert_equal(*(measure(net, x) for net in nets))


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('nothing', 'fused'),
        ('attention frozen', 'fused'),
        ('relu SiLU', 'plain (SiLU as relu)'),
        ('attention foreign', 'plain (Squeeze as attention)'),
        ('linear LoRA', 'plain (other layers in the attention)'),
        ('gate held', 'plain (replaced methods)'),
        ('weights parametrised', 'plain (other layers in the attention)'),
        ('norms parametrised', 'plain (parametrised norm)'),
        ('hooks on norms', 'plain (hooks)'),
        ('excitations pruned', 'plain (hooks)'),
    ],
)
def test_the_path_is_told(name: str, reason: str) -> None:
    net, _ = pair()
    MUTATIONS[name](net)
    assert {b.path for s in net.stages.values() for b in s if isinstance(b, ResidualBlock)} == {
        reason
    }
    assert reason in repr(net)


def test_hooks_that_hold_for_every_module() -> None:
    net, _ = pair()
    block = net.layer1[0]
    seen = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        assert block.path == 'plain (hooks)'
        net(torch.randn(2, 3, 32, 32).double())
    finally:
        handle.remove()
    assert seen.count(ChannelAttention) == 8 and block.path == 'fused'


def test_a_method_that_is_replaced_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    net, composed = pair()
    monkeypatch.setattr(ChannelAttention, 'excite', lambda self, a, b: a if a is not None else b)
    assert net.layer1[0].path == 'plain (replaced methods)'
    x = torch.randn(2, 3, 32, 32).double()
    assert_equal(measure(net, x), measure(composed, x))


def test_gates_in_a_loss_of_their_own() -> None:
    """Penalised gates, gradients of gates, and backward passes in parts."""
    grads = []
    x = torch.randn(2, 3, 32, 32).double()
    for net in pair():
        gates: list[Tensor] = []
        for attention in attentions(net):
            attention.fc2.register_forward_hook(lambda m, i, z, into=gates: into.append(z))
        outs = net(x)
        penalty = sum(z.sigmoid().square().mean() for z in gates)
        to_gates = torch.autograd.grad(outs[-1].sum(), gates[:-1], retain_graph=True)
        (outs[-1].mean() + penalty).backward(retain_graph=True)
        outs[0].mean().backward()
        grads.append([*to_gates, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert len(grads[0]) == len(grads[1])
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


def test_an_output_that_somebody_keeps_is_not_overwritten() -> None:
    class Keeping(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            self.kept = super().forward(x)
            return self.kept

    net, _ = pair()
    block = net.layer1[0]
    keeping = Keeping(8, 8, 3, padding=1, bias=False).double()
    keeping.load_state_dict(block.conv2.state_dict())
    block.conv2 = keeping
    x = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        net.eval()(x)
        inner = block.relu(block.norm1(block.conv1(net.maxpool(net.relu(net.norm1(net.conv1(x)))))))
        expected = nn.functional.conv2d(inner, keeping.weight, padding=1)
    assert block.path == 'fused'
    torch.testing.assert_close(keeping.kept, expected)


def per_sample(net: SEResNet, x: Tensor) -> Tensor:
    parameters = dict(net.named_parameters())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(net, parameters, (sample[None],))[-1].sum()

    return vmap(grad(loss), (None, 0))(parameters, x)['conv1.weight']


def dual(net: SEResNet, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, x))[-1]).tangent


@pytest.mark.parametrize(
    'transform',
    [
        per_sample,
        lambda net, x: vmap(lambda sample: net(sample[None])[-1])(x),
        lambda net, x: jvp(lambda image: net(image)[-1], (x,), (x,))[1],
        dual,
    ],
    ids=['per-sample gradients', 'vmap', 'jvp', 'dual numbers'],
)
def test_transforms_take_the_plain_path(transform: Callable) -> None:
    x = torch.randn(2, 3, 32, 32).double()
    results = []
    for net in pair():
        with torch.no_grad() if transform is not per_sample else torch.enable_grad():
            results.append(transform(net.eval(), x))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-9)


def through_torch_save(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # written by this test


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, through_torch_save, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'torch.save', 'pickle'],
)
@pytest.mark.parametrize('changes', [{}, {'channels_last': True}, {'attention': None}], ids=str)
def test_copies_compute_the_same(copied: Callable, changes: dict[str, Any]) -> None:
    net, _ = pair(**changes)
    x = torch.randn(2, 3, 32, 32).double()
    twin = copied(net)
    assert_equal(measure(twin, x), measure(net, x))
    assert twin.state_dict()._metadata == net.state_dict()._metadata


def test_stochastic_depth() -> None:
    """Off by default and in evaluation; in training it skips branches of samples."""
    net, composed = pair(drop_path_rate=0.5)
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for s in net.stages.values() for b in s]
    assert rates == pytest.approx([0.5 * k / 7 for k in range(8)])
    x = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        for got, want in zip(net.eval()(x), composed.eval()(x), strict=True):
            torch.testing.assert_close(got, want)
    assert net.layer4[1].path == 'fused' and net.train().layer4[1].path != 'fused'
    block = net.layer4[1]
    y = torch.randn(64, 64, 2, 2).double()
    kept = (block(y) != block.relu(y)).flatten(1).any(1).double().mean()
    assert 0.2 < kept < 0.8
