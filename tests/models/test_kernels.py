"""The Triton kernels, in Triton's interpreter and compiled ahead of time.

That the tail by kernels equals the composition is in ``test_fused.py`` and
``test_fused_precision.py``; here is what those do not reach.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.precision import LAST, LAYOUTS, beyond, worst
from support.tails import FULL, gradient, inputs, make_tail, plain_tail, run_tail, tail_bars
from torch import nn

from mmse.models import ChannelAttention, SEResNet
from mmse.models.fused import fused_tail
from mmse.models.kernel_support import why_no_kernels
from mmse.utils.errors import UserError

pytestmark = pytest.mark.usefixtures('single_thread')
needs_triton = pytest.mark.skipif(
    why_no_kernels('cpu') is not None, reason=f'no kernels: {why_no_kernels("cpu")}'
)
by_kernels = partial(fused_tail, kernels=True)
NAMES = ['nchw', 'nhwc']


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize('layout', LAYOUTS, ids=NAMES)
@pytest.mark.parametrize(
    'shape',
    [(2, 70, 5, 3), (1, 3, 16, 16), (2, 17, 17, 16), (3, 2, 40, 60), (1, 1, 9, 9), (20, 5, 2, 1)],
    ids=str,
)
def test_edges_of_tiles(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """A block of channels and a bit, several slices, more samples than are merged at once."""
    tail = make_tail(FULL, shape[1])
    y, shortcut = inputs(shape)
    grad = gradient(tail, y, shortcut)
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    got = run_tail(by_kernels, tail, y, shortcut, grad, torch.float32, layout)
    assert not beyond(got, want, tail_bars(tail, y, shortcut, grad, want, floor=16))
    assert got['out'].is_contiguous(memory_format=layout)
    assert got['y'].is_contiguous(memory_format=layout)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize('layout', LAYOUTS, ids=NAMES)
def test_border_far_from_the_rest(layout: torch.memory_format) -> None:
    """The pivot is not from one column: padding may leave that far from the rest of the map."""
    norm, attention = nn.BatchNorm2d(4), ChannelAttention(4, preset='se')
    y = torch.randn(2, 4, 32, 160).to(memory_format=layout)
    y[..., 0] += 1000
    by_kernels(y, torch.zeros_like(y), norm, attention)
    var = y.double().transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close((norm.running_var.double() - 0.9) / 0.1, var, rtol=3e-6, atol=0)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize('layout', LAYOUTS, ids=NAMES)
def test_ties_go_to_the_first_position(layout: torch.memory_format) -> None:
    """Also across slices, downwards where the weight is negative, and everywhere where it is 0."""
    norm, attention = (module.float() for module in make_tail({'squeeze': 'max'}, 3))
    norm.eval()
    with torch.no_grad():
        norm.running_mean.zero_()
        norm.weight.copy_(torch.tensor([2.0, -2.0, 0.0]))
    y = torch.zeros(1, 3, 90, 100)
    y[0, 0, [7, 7, 80], [9, 30, 2]] = 1
    y[0, 1, [89, 3], [0, 39]] = -1
    y[0, 2, 0, 0] = 5
    y = y.to(memory_format=layout).requires_grad_()
    # The relu is off, so only the squeeze has a gradient, but for one column.
    shortcut = torch.full_like(y, -9).index_fill_(3, torch.tensor([20]), 9)
    grads = []
    for function in (plain_tail, by_kernels):
        y.grad = norm.weight.grad = None
        function(y, shortcut, norm, attention).sum().backward()
        y.grad[..., 20] = 0
        grads.append({'y': y.grad.clone(), 'weight': norm.weight.grad.clone()})
    assert grads[1]['y'].nonzero().tolist() == [[0, 0, 7, 9], [0, 1, 3, 39]]
    assert worst(grads[1], grads[0]) < (1e-5, '')


@needs_triton
@pytest.mark.parametrize('layout', LAYOUTS, ids=NAMES)
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_shows(value: float, train: bool, layout: torch.memory_format) -> None:
    norm, attention = nn.BatchNorm2d(4).train(train), ChannelAttention(4, preset='sepp_v2')
    y = torch.randn(2, 4, 20, 30).to(memory_format=layout)
    y[1, 2, 7, 8] = value
    shortcut = torch.ones_like(y)
    want, got = (f(y.clone(), shortcut, norm, attention) for f in (plain_tail, by_kernels))
    assert torch.equal(want.isfinite(), got.isfinite())
    assert not got.isfinite().all()


@needs_triton
def test_running_statistics_in_half_precision() -> None:
    tail = make_tail(FULL, 8)
    y, shortcut = inputs((2, 8, 5, 5))
    outs = []
    for function, kind in ((plain_tail, torch.float64), (by_kernels, torch.float16)):
        norm, attention = (m.to(kind) for m in (nn.BatchNorm2d(8), tail[1]))
        outs.append({'out': function(y.half().to(kind), shortcut.half().to(kind), norm, attention)})
        outs[-1] |= {name: b for name, b in norm.named_buffers() if 'running' in name}
    assert worst(outs[1], {k: v.detach() for k, v in outs[0].items()}) < (4e-3, '')


def test_who_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing does by default; where they cannot run, the backbone says why and computes."""
    assert SEResNet(18, attention='se').layer1[0].path == 'fused'
    net = SEResNet(18, attention='se', base_channels=8, fused='kernels')
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    why = why_no_kernels('cuda') or 'they need a GPU'
    assert net.layer1[0].path.startswith(f'fused, without kernels: {why}')
    assert net(torch.randn(2, 3, 64, 64))[-1].isfinite().all()
    synchronised = {'type': 'SyncBN', 'requires_grad': True}
    block = SEResNet(18, attention='se', fused='kernels', norm_cfg=synchronised).layer1[0]
    assert block.path == 'fused, without kernels: the norm is synchronised'
    with pytest.raises(UserError, match="fused: 'triton' given; allowed: True, False, 'kernels'"):
        SEResNet(18, attention='se', fused='triton')
    monkeypatch.setattr('mmse.models.kernel_support._version', lambda: '3.1.0')
    assert 'triton 3.1.0 is installed, they need triton' in net.layer1[0].path


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize('recompute', [None, 'expand'])
def test_backbone(recompute: str | None) -> None:
    torch.manual_seed(0)
    net = SEResNet(50, attention=FULL, base_channels=4, fused='kernels', recompute=recompute)
    assert net.layer1[0].path.startswith('fused, by kernels')
    x = torch.randn(1, 3, 64, 64)
    plain = SEResNet(50, attention=FULL, base_channels=4, fused=False)
    plain.load_state_dict(net.state_dict())
    found = []
    for model in (plain, net):
        model.eval()
        out = model(x)[-1]
        out.square().sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        found.append({'out': out.detach(), **grads})
    assert worst(found[1], found[0]) < (1e-3, '')


@pytest.mark.slow
@needs_triton
def test_compiled_ahead_of_time(record_property: Any) -> None:
    """For three generations of GPUs: few enough registers, and nothing spilled to memory."""
    script = Path(__file__).parents[1] / 'support' / 'compile_kernels.py'
    environment = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 3 * 2 * (3 * 4 + 3)
    most = max(found, key=lambda name: found[name]['registers'])
    record_property('summary', f'most registers of a kernel: {found[most]["registers"]} ({most})')
    for name, kernel in found.items():
        assert kernel['registers'] <= 96 and kernel['local'] == 0, name


@pytest.mark.gpu
@pytest.mark.parametrize('layout', [torch.contiguous_format, LAST], ids=NAMES)
@pytest.mark.parametrize('shape', [(2, 256, 100, 168), (2, 64, 7, 7), (1, 2048, 25, 42)], ids=str)
@pytest.mark.parametrize('path', ['eager', 'kernels'])
def test_on_a_gpu(path: str, shape: tuple[int, ...], layout: torch.memory_format) -> None:
    tail = tuple(module.cuda() for module in make_tail(FULL, shape[1]))
    y, shortcut = (t.cuda() for t in inputs(shape))
    grad = gradient(tail, y, shortcut)
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    bars = tail_bars(tail, y, shortcut, grad, want, floor=16)
    function = by_kernels if path == 'kernels' else fused_tail
    got = run_tail(function, tail, y, shortcut, grad, torch.float32, layout)
    assert not beyond(got, want, bars)
