"""What is computed again in the backward pass: numbers, bytes, statistics, and what is refused."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from mmdet.models import ResNet
from support.kept import kept_bytes
from support.precision import LAST, worst
from support.versions import compiles
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmse.models import SEBottleneck, SEResNet
from mmse.models.fused import norm_relu
from mmse.models.recompute import conv_of
from mmse.utils.errors import UserError

pytestmark = pytest.mark.usefixtures('single_thread')
on_both = pytest.mark.parametrize('policy', ['cpu', 'gpu'], indirect=True)
FULL = {'preset': 'sepp_v2_residual', 'learnable_temperature': True}


def network(depth: int, recompute: str | None, **changes: Any) -> SEResNet:
    torch.manual_seed(0)
    settings = {'base_channels': 8, 'norm_eval': False, 'attention': FULL, **changes}
    net = SEResNet(depth, zero_init_residual=False, recompute=recompute, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.train()


def step(
    net: nn.Module, x: Tensor, around: Callable[..., Any] = lambda net, x: net(x)
) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    outs = around(net, x)
    sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs).backward()
    got = {f'out{i}': out.detach() for i, out in enumerate(outs)} | {'x': x.grad}
    got |= {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return got | dict(net.named_buffers())


CASES: list[dict[str, Any]] = [
    {},
    {'attention': None},
    {'attention': [None, 'se', 'se_max', FULL]},
    {'norm_eval': True},
    {'norm_cfg': {'type': 'BN', 'requires_grad': False}, 'norm_eval': True},
    {'norm_cfg': {'type': 'SyncBN', 'requires_grad': True}},
    {'frozen_stages': 2},
    {'frozen_stages': 2, 'train_frozen_attention': True},
    {'deep_stem': True, 'avg_down': True, 'groups': 1},
    {'channels_last': True},
]


@on_both
@pytest.mark.parametrize('recompute', ['norms', 'expand'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('changes', CASES, ids=str)
def test_equals_keeping_everything(
    changes: dict[str, Any], depth: int, recompute: str, policy: str
) -> None:
    """Outputs, gradients and statistics, which are updated once."""
    changes = {key: value for key, value in changes.items() if key != 'groups' or depth == 50}
    layout = LAST if changes.get('channels_last') else torch.contiguous_format
    x = torch.randn(2, 3, 64, 96).double().to(memory_format=layout)
    want, got = (
        step(network(depth, choice, **changes).double(), x) for choice in (None, recompute)
    )
    assert worst(got, want) < (1e-9, '')


@on_both
@pytest.mark.parametrize('recompute', ['norms', 'expand'])
@pytest.mark.parametrize('layout', [torch.contiguous_format, LAST], ids=['nchw', 'nhwc'])
def test_autocast(recompute: str, layout: torch.memory_format, policy: str) -> None:
    """One block is as far from exact as one that keeps everything."""
    found = []
    x = torch.randn(4, 32, 12, 9)
    for choice, kind in ((None, torch.float64), (None, torch.float32), (recompute, torch.float32)):
        torch.manual_seed(0)
        block = SEBottleneck(32, 8, attention=FULL, recompute=choice).to(kind, memory_format=layout)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=kind is torch.float32):
            image = x.to(kind, memory_format=layout).requires_grad_()
            out = block(image)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype))
        found.append([out.detach(), image.grad, *(p.grad for p in block.parameters())])
    exact, kept, again = found

    def distance(values: list[Tensor]) -> float:
        pairs = zip(values, exact, strict=True)
        return sum(float((v.double() - e).norm() / e.norm()) for v, e in pairs)

    assert 0 < distance(again) < 1.5 * distance(kept)


BARS = {'norms': 0.86, 'expand': 0.61}


@pytest.mark.parametrize('recompute', list(BARS))
@pytest.mark.parametrize('attention', ['sepp_v2_residual', None])
@pytest.mark.parametrize('norm_eval', [False, True], ids=['batch statistics', 'norm_eval'])
def test_bytes(
    norm_eval: bool, attention: str | None, recompute: str, record_property: Any
) -> None:
    x = torch.randn(2, 3, 256, 256)
    plain = ResNet(50, norm_eval=norm_eval)
    plain.train()
    net = SEResNet(50, norm_eval=norm_eval, attention=attention, recompute=recompute).train()
    ratio = kept_bytes(net, x) / kept_bytes(plain, x)
    record_property('summary', f'bytes with recompute={recompute!r}, {attention}: {ratio:.4f}')
    assert ratio <= BARS[recompute]


def test_the_map_is_free_after_the_forward_pass() -> None:
    """Hooks count what autograd says that it keeps; this is what is really in memory."""
    norm, conv = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False)
    z = norm_relu(torch.randn(2, 8, 9, 9, requires_grad=True), norm)
    seen = weakref.ref(z)
    out = conv_of(z, conv)
    del z
    gc.collect()
    assert seen() is None
    out.sum().backward()
    assert conv.weight.grad.abs().max() > 0


@pytest.mark.parametrize('recompute', ['norms', 'expand'])
def test_backward_twice_and_parts(recompute: str) -> None:
    net, plain = network(50, recompute).double(), network(50, None).double()
    x = torch.randn(2, 3, 64, 64).double()
    grads = []
    for model in (net, plain):
        out = model(x)[-1].square().sum()
        weight = model.layer4[0].conv2.weight
        part = torch.autograd.grad(out, weight, retain_graph=True)[0]
        again = torch.autograd.grad(out, weight, retain_graph=True)[0]
        assert torch.equal(part, again)
        out.backward()
        grads.append({'part': part, **{n: p.grad for n, p in model.named_parameters()}})
    assert worst(grads[0], grads[1]) < (1e-9, '')


def test_no_second_derivative() -> None:
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    out = network(18, 'norms', attention=None)(x)[-1].sum()
    with pytest.raises(UserError, match='without recompute'):
        torch.autograd.grad(out, x, create_graph=True)


def test_modules_with_hooks_are_called() -> None:
    net = network(50, 'expand')
    seen: list[nn.Module] = []
    block = net.layer2[0]
    for module in (block.bn1, block.conv2, block.bn2, block.conv3):
        module.register_forward_hook(lambda module, *_: seen.append(module))
    step(net, torch.randn(2, 3, 64, 64))
    assert seen == [block.bn1, block.conv2, block.bn2, block.conv3]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'recompute': 'all'},
            r"SEResNet.recompute: 'all' given; allowed: None, 'norms', 'expand'",
        ),
        ({'with_cp': True}, "recompute='norms' and with_cp given; allowed: one"),
        ({'fused': False}, "recompute='norms' and fused=False given; allowed: one"),
        ({'compile': True}, "recompute='norms' and compile given; allowed: one"),
        ({'drop_path_rate': 0.1}, "recompute='norms' and drop_path_rate given"),
        ({'norm_cfg': {'type': 'GN', 'num_groups': 4}}, "of type BN or SyncBN, but it is 'GN'"),
        (
            {'dcn': {'type': 'DCN'}, 'stage_with_dcn': (False,) * 4},
            "recompute='norms' and dcn given; allowed: one",
        ),
    ],
    ids=str,
)
def test_what_cannot_hold(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SEResNet(50, **{'recompute': 'norms', **changes})


def test_said_when_printed() -> None:
    text = repr(SEResNet(18, attention=[None, 'se', 'se', 'se'], recompute='norms'))
    assert "layer1: 2 x no attention, recompute='norms'" in text
    assert text.count("fused, recompute='norms'") == 3


def test_users_hooks_of_saved_tensors_see_what_is_kept() -> None:
    """Offloading to the CPU (``save_on_cpu``) goes on working."""
    net, other = network(50, 'expand').double(), network(50, 'expand').double()
    x = torch.randn(2, 3, 64, 64).double()
    want = step(net, x)
    with torch.autograd.graph.save_on_cpu():
        got = step(other, x)
    assert worst(got, want) < (1e-12, '')


def test_checkpointing_around_the_network() -> None:
    net, other = network(50, 'expand').double(), network(50, 'expand').double()
    x = torch.randn(2, 3, 64, 64).double()
    want = step(net, x)
    got = step(other, x, partial(checkpoint, use_reentrant=False))
    # The statistics are updated by both forward passes of a checkpoint, as always.
    named = dict(net.named_buffers())
    want, got = ({k: v for k, v in s.items() if k not in named} for s in (want, got))
    assert worst(got, want) < (1e-12, '')


@pytest.mark.slow
@compiles
def test_compiled_from_outside() -> None:
    """The modules are compiled; what is kept is the compiler's choice."""
    net, plain = network(18, 'norms').double(), network(18, None).double()
    x = torch.randn(2, 3, 64, 64).double()
    got = step(torch.compile(net, backend='aot_eager'), x)
    got = {name.removeprefix('_orig_mod.'): value for name, value in got.items()}
    assert worst(got, step(plain, x)) < (1e-9, '')
