"""A fused and a composed network that must agree whatever is done to both."""

from typing import Any

import torch
from torch import Tensor

from mmse.models import SEResNet

SMALL = {'depth': 18, 'base_channels': 8, 'norm_eval': False, 'attention': 'sepp_v2_residual'}


def pair(**changes: Any) -> tuple[SEResNet, SEResNet]:
    """The same network, fused and composed, in double precision, with weights that are no start."""
    fused = SEResNet(**{**SMALL, **changes}).double()
    for parameter in fused.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    composed = SEResNet(**{**SMALL, **changes}, fused=False).double()
    composed.load_state_dict(fused.state_dict())
    return fused.train(), composed.train()


def measure(net: SEResNet, x: Tensor) -> dict[str, Tensor | None]:
    """Outputs, gradients and statistics of one step."""
    x = x.clone().requires_grad_()
    outs = net(x)
    sum((k + 1) * out.square().mean() for k, out in enumerate(outs)).backward()
    found: dict[str, Tensor | None] = {f'out{k}': out for k, out in enumerate(outs)}
    found |= {'x': x.grad} | {name: p.grad for name, p in net.named_parameters()}
    return found | dict(net.named_buffers())


def assert_equal(got: dict[str, Tensor | None], want: dict[str, Tensor | None]) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        if value is None:
            assert got[name] is None, name
        else:
            assert got[name] is not None, f'{name} has lost its gradient'
            torch.testing.assert_close(got[name], value, rtol=1e-8, atol=1e-9, msg=name)
