"""The fused tail of a block against the plain composition of norm, attention, addition and relu."""

import copy
from typing import Any

import pytest
import torch
from support.precision import LAST, LAYOUTS, beyond, worst
from support.tails import FULL, gradient, inputs, make_tail, plain_tail, run_tail, tail_bars
from support.versions import needs_torch
from torch import Tensor

from mmse.models.fused import fused_tail
from mmse.models.settings import PRESETS
from mmse.utils.errors import UserError

pytestmark = pytest.mark.usefixtures('single_thread', 'policy')

ATTENTIONS: dict[str, dict[str, Any]] = {
    **{name: {'preset': name} for name in PRESETS},
    'everything': FULL,
    'hard': {'gate': 'hardsigmoid', 'learnable_temperature': True, 'bias': False},
    'constant': {'squeeze': 'max', 'residual': True, 'alpha': -0.5, 'temperature': 0.5},
}
SHAPES = {'odd': (3, 24, 9, 7), 'one sample': (1, 24, 6, 5), 'points': (4, 24, 1, 1)}


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', list(ATTENTIONS))
def test_equals_plain(name: str, train: bool, shape: str) -> None:
    tail = make_tail(ATTENTIONS[name])
    tail[0].train(train)
    y, shortcut = inputs(SHAPES[shape])
    grad = gradient(tail, y, shortcut)
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    bars = tail_bars(tail, y, shortcut, grad, want) if shape == 'odd' else {}
    for layout in LAYOUTS:
        got = run_tail(fused_tail, tail, y, shortcut, grad, layout=layout)
        assert worst(got, want) < (1e-10, '')
        assert got['out'].is_contiguous(memory_format=layout)
        assert got['y'].is_contiguous(memory_format=layout)
        if bars:
            got = run_tail(fused_tail, tail, y, shortcut, grad, torch.float32, layout)
            assert not beyond(got, want, bars)


@pytest.mark.parametrize('frozen', ['norm', 'attention', 'y', 'shortcut', 'all but y', 'fc1.bias'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_frozen(frozen: str, train: bool) -> None:
    norm, attention = make_tail(FULL)
    norm.train(train)
    y, shortcut = inputs(SHAPES['odd'])
    grads = []
    for function in (plain_tail, fused_tail):
        leaves = {'y': y.clone(), 'shortcut': shortcut.clone()}
        modules = copy.deepcopy((norm, attention))
        leaves |= {f'norm.{k}': p for k, p in modules[0].named_parameters()}
        leaves |= {f'attention.{k}': p for k, p in modules[1].named_parameters()}
        for name, leaf in leaves.items():
            stays = name != 'y' if frozen == 'all but y' else frozen in [*name.split('.', 1), name]
            leaf.requires_grad_(not (stays or name.endswith(frozen)))
        out = function(leaves['y'], leaves['shortcut'], *modules)
        out.backward(torch.ones_like(out))
        grads.append({name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})
    assert 0 < len(grads[0]) < 12
    assert worst(grads[1], grads[0]) < (1e-10, '')


@pytest.mark.parametrize('name', ['se', 'se_max', 'everything'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_gradcheck(name: str, train: bool) -> None:
    norm, attention = make_tail(ATTENTIONS[name], 4, momentum=0.0)
    norm.train(train)
    y, shortcut = inputs((2, 4, 3, 2))
    leaves = [y, shortcut + 0.3, norm.weight, norm.bias, *attention.parameters()]

    def function(*values: Tensor) -> Tensor:
        return fused_tail(values[0], values[1], norm, attention)

    norm.weight.data[0] = 0.4  # at zero the maximum's position changes
    assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize('layout', [torch.contiguous_format, LAST], ids=['nchw', 'nhwc'])
@pytest.mark.parametrize('function', [plain_tail, fused_tail])
def test_ties_go_to_the_first_position(function: Any, layout: torch.memory_format) -> None:
    norm, attention = make_tail({'squeeze': 'max'}, 3)
    norm.eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -2.0, 0.0]))
        norm.running_mean.zero_()
    y = torch.zeros(1, 3, 30, 40).double()
    y[0, 0, [7, 7, 20], [9, 30, 2]] = 1
    y[0, 1, [29, 3], [0, 39]] = -1
    y = y.to(memory_format=layout).requires_grad_()
    # Where the relu is off only the squeeze has a gradient.
    out = function(y, torch.full_like(y, -9).index_fill_(3, torch.tensor([20]), 9), norm, attention)
    out.sum().backward()
    grad = y.grad.clone()
    grad[..., 20] = 0
    assert grad.nonzero().tolist() == [[0, 0, 7, 9], [0, 1, 3, 39]]
    # A channel whose weight is zero ties everywhere; its weight's gradient tells the position.
    y = torch.randn(1, 3, 30, 40).double().to(memory_format=layout)
    norm.weight.grad = None
    gain = torch.zeros_like(y)
    gain[0, :, 0, 5] = 1
    (function(y, torch.full_like(y, 9), norm, attention) * gain).sum().backward()
    moved = y.clone()
    moved[0, 2, 0, 0] += 1
    before, norm.weight.grad = norm.weight.grad.clone(), None
    (function(moved, torch.full_like(y, 9), norm, attention) * gain).sum().backward()
    assert (norm.weight.grad - before)[2].abs() > 1e-6


@pytest.mark.parametrize(
    'bn',
    [{'momentum': None}, {'momentum': 0.3, 'eps': 0.1}, {'track_running_stats': False}],
    ids=str,
)
def test_statistics_over_steps(bn: dict[str, Any]) -> None:
    tails = [make_tail(FULL, **bn)]
    tails.append(copy.deepcopy(tails[0]))
    for step in range(4):
        y, shortcut = inputs((2, 24, 5, 4))
        y = y * (step + 1) + 30 * step
        with torch.set_grad_enabled(step != 2):
            outs = [
                f(y, shortcut, *t) for f, t in zip((plain_tail, fused_tail), tails, strict=True)
            ]
        torch.testing.assert_close(outs[1], outs[0], rtol=1e-10, atol=1e-10)
        for a, b in zip(tails[0][0].buffers(), tails[1][0].buffers(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
    for norm, _ in tails:
        norm.eval()
    outs = [f(y, shortcut, *t) for f, t in zip((plain_tail, fused_tail), tails, strict=True)]
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-10, atol=1e-10)


def test_gradients_twice_but_not_of_gradients() -> None:
    y, shortcut = inputs(SHAPES['odd'])
    y.requires_grad_()
    norm, attention = make_tail(FULL)
    calls = []
    attention.fc2.weight.register_hook(calls.append)
    out = fused_tail(y, shortcut, norm, attention)
    first = torch.autograd.grad(out.sum(), [y, attention.fc1.weight], retain_graph=True)
    second = torch.autograd.grad(out.sum(), [y, attention.fc1.weight], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    out.sum().backward(retain_graph=True)
    assert len(calls) == 1
    assert torch.equal(calls[0], attention.fc2.weight.grad)
    with pytest.raises(UserError, match=r'no second derivative.*fused=False'):
        torch.autograd.grad(out.sum(), y, create_graph=True)


@needs_torch('2.6', 'was not tried with batches of gradients')
def test_a_batch_of_gradients() -> None:
    """As ``jacobian(vectorize=True)`` asks for them."""
    norm, attention = make_tail(FULL)
    y, shortcut = inputs((2, 24, 5, 4))
    out = fused_tail(y.requires_grad_(), shortcut, norm, attention).mean((2, 3))[0]
    rows = torch.eye(len(out)).double()[:4]
    wanted = (y, attention.fusion_logits, norm.weight)
    together = torch.autograd.grad(out, wanted, rows, retain_graph=True, is_grads_batched=True)
    for i, row in enumerate(rows):
        alone = torch.autograd.grad(out, wanted, row, retain_graph=True)
        for got, want in zip(together, alone, strict=True):
            torch.testing.assert_close(got[i], want)


def test_leaves_no_weight_without_graph_to_autocast() -> None:
    norm, attention = make_tail(FULL)
    norm, attention = norm.float(), attention.float()
    y, shortcut = (t.bfloat16() for t in inputs(SHAPES['odd']))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        fused_tail(y, shortcut, norm, attention)
        plain_tail(y, shortcut, norm, attention).sum().backward()
    assert all(param.grad is not None for param in attention.parameters())


def test_inputs_stay_as_they_are() -> None:
    """But for y without gradients, whose memory is used."""
    for centre in (0, 100):
        y, shortcut = inputs(SHAPES['odd'])
        y += centre
        before, tail = (y.clone(), shortcut.clone()), make_tail(FULL)
        want = fused_tail(y, shortcut, *copy.deepcopy(tail))
        assert torch.equal(y, before[0]) and torch.equal(shortcut, before[1])
        with torch.no_grad():
            got = fused_tail(y, shortcut, *tail)
        assert torch.equal(shortcut, before[1])
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_nothing_is_kept_out_of_sight() -> None:
    y, shortcut = inputs(SHAPES['odd'])
    out = fused_tail(y.requires_grad_(), shortcut, *make_tail(FULL))
    assert not any(isinstance(value, Tensor) for value in vars(out.grad_fn).values())
