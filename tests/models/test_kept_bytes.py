"""What the forward pass of a backbone keeps for the backward pass."""

from typing import Any

import pytest
import torch
from mmdet.models import ResNet
from torch import Tensor, nn

from mmse.models import SEResNet

pytestmark = pytest.mark.usefixtures('single_thread')


def kept_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes that the forward pass leaves for the backward pass, without parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outs = net(x)
    assert all(out.requires_grad for out in outs)
    return sum(storage.nbytes() for storage in kept.values())


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
