"""What the forward pass of a backbone keeps for the backward pass."""

from typing import Any

import pytest
import torch
from mmdet.models import ResNet
from support.kept import kept_bytes

from mmse.models import SEResNet

pytestmark = pytest.mark.usefixtures('single_thread')


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
@pytest.mark.parametrize('norm_eval', [False, True], ids=['batch statistics', 'norm_eval'])
def test_bytes_kept_for_the_backward_pass(norm_eval: bool, norm: str, record_property: Any) -> None:
    x = torch.randn(2, 3, 256, 256)
    settings = {'norm_eval': norm_eval, 'norm_cfg': {'type': norm, 'requires_grad': True}}
    plain_net = ResNet(50, **settings)
    plain_net.train()
    plain = kept_bytes(plain_net, x)
    net = SEResNet(50, attention='sepp_v2_residual', **settings).train()
    ratio = kept_bytes(net, x) / plain
    mode = 'norm_eval' if norm_eval else 'train mode'
    record_property(
        'summary', f'bytes kept for backward, ResNet-50, {norm} in {mode}: {ratio:.4f} of plain'
    )
    assert ratio <= 1.01
