"""Rounding in the fused tail: means far from zero, large maps, bfloat16 and float16."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from support.precision import LAYOUTS, Tensors, beyond, rounding_bars, worst
from support.tails import FULL, gradient, inputs, make_tail, plain_tail, run_tail, tail_bars
from support.versions import half_on_cpu
from torch import Tensor

from mmse.models import eager
from mmse.models.fused import fused_tail

pytestmark = pytest.mark.usefixtures('single_thread', 'policy')


@pytest.mark.slow
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('ratio', [5, 30, 1000])
@pytest.mark.parametrize('layout', LAYOUTS, ids=['nchw', 'nhwc'])
def test_mean_far_from_zero(ratio: int, train: bool, layout: torch.memory_format) -> None:
    """Nearly as exact in float32 as around zero, where batch norm is off by 1e-4 and more."""
    centre = ratio * torch.linspace(-1, 1, 24)
    tail = make_tail(FULL, centre=centre)
    tail[0].train(train)
    y, shortcut = inputs((2, 24, 40, 33))
    y = (y.float() + centre[:, None, None]).double()
    for module in tail:
        module.float().double()
    shortcut = shortcut.float().double()
    grad = gradient(tail, y, shortcut).float().double()
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    assert worst(run_tail(fused_tail, tail, y, shortcut, grad, layout=layout), want) < (1e-10, '')
    single = run_tail(fused_tail, tail, y, shortcut, grad, torch.float32, layout)
    tail[0].running_mean -= centre
    y = y - centre[:, None, None]
    centred = run_tail(plain_tail, tail, y, shortcut, grad)
    assert not beyond(single, want, tail_bars(tail, y, shortcut, grad, centred, floor=32))


def test_large_map() -> None:
    """Long sums, and the maximum's search over windows of a length that divides nothing."""
    tail = make_tail(FULL, 8)
    y, shortcut = inputs((1, 8, 101, 167))
    grad = gradient(tail, y, shortcut)
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    assert worst(run_tail(fused_tail, tail, y, shortcut, grad), want) < (1e-10, '')
    single = run_tail(fused_tail, tail, y, shortcut, grad, torch.float32)
    assert not beyond(single, want, tail_bars(tail, y, shortcut, grad, want, floor=16))


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=half_on_cpu)])
@pytest.mark.parametrize('autocast', [True, False], ids=['autocast', 'all'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('layout', LAYOUTS, ids=['nchw', 'nhwc'])
def test_low_precision(
    dtype: torch.dtype, autocast: bool, train: bool, layout: torch.memory_format
) -> None:
    tail = make_tail(FULL)
    tail[0].train(train)
    y, shortcut = (t.to(dtype).double() for t in inputs((4, 24, 12, 9)))
    grad = gradient(tail, y, shortcut) * 0.1
    grad[(plain_tail(y, shortcut, *copy.deepcopy(tail)) < 0.1)] = 0
    want = run_tail(plain_tail, tail, y, shortcut, grad)
    own = torch.float32 if autocast else dtype  # of weights, statistics and their gradients

    def low(function: Any, scale: float, layout: torch.memory_format) -> Tensors:
        def under_autocast(y: Tensor, shortcut: Tensor, *modules: Any) -> Tensor:
            with torch.autocast('cpu', dtype=dtype, enabled=autocast):
                # As a convolution under autocast hands it on.
                return function(y.to(dtype), shortcut.to(dtype), *modules)

        return run_tail(under_autocast, tail, y * scale, shortcut * scale, grad, own, layout)

    got = low(fused_tail, 1, layout)
    assert got['out'].dtype == dtype and got['norm.weight'].dtype == own
    assert not beyond(
        got, want, rounding_bars(partial(low, plain_tail), want, dtype=dtype, floor=1)
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=half_on_cpu)])
@pytest.mark.parametrize('layout', LAYOUTS, ids=['nchw', 'nhwc'])
def test_variance_of_half_precision_maps(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """In single precision, as torch's batch norm has it: it is too large for a half."""
    norm, attention = make_tail(FULL)
    norm.float().train()
    before = norm.running_var.double()
    y, _ = inputs((2, 24, 12, 9))
    y = (300 * y).to(dtype).contiguous(memory_format=layout)
    fused_tail(y, torch.zeros_like(y), norm, attention.float())
    want = 0.9 * before + 0.1 * y.double().var((0, 2, 3))
    assert want.max() > torch.finfo(torch.float16).max / 10
    torch.testing.assert_close(norm.running_var.double(), want, rtol=1e-5, atol=0)


def test_half_precision_weights_without_attention() -> None:
    """The offset of a half precision norm is as precise as its factor."""
    norm = torch.nn.BatchNorm2d(6).bfloat16()
    y = torch.randn(2, 6, 5, 4).bfloat16()
    known = eager.squeeze(y, norm, '', locate=False, group=None)
    assert known.at.dtype == known.a.dtype == torch.float32
