"""A block keeps less for the backward pass: what is cheap to compute again is not kept.

Of a residual block only the outputs of convolutions and of the block need keeping. ``'norms'``
computes the maps between a norm and the next convolution again, which are one affine map and a relu
of what is kept; ``'expand'`` the last convolution's output as well, which in a bottleneck is four
times as wide as its input. Statistics are computed, and updated, once.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmse.models.fused import Again, output_again

RECOMPUTE = (None, 'norms', 'expand')


def conv_of(z: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(z), (B, C, H, W), which does not keep z, a result of ``norm_relu``."""
    node = z.grad_fn
    if node is None:
        return conv(z)  # type: ignore[no-any-return]
    # Not z itself: what is saved holds on to these functions.
    storage, shape = z.untyped_storage()._cdata, z.shape

    def pack(tensor: Tensor) -> Any:
        same = tensor.untyped_storage()._cdata == storage and tensor.shape == shape
        return node if same else tensor

    def unpack(packed: Any) -> Tensor:
        return packed if isinstance(packed, Tensor) else output_again(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return conv(z)  # type: ignore[no-any-return]


def again(z: Tensor, conv: nn.Conv2d, y: Tensor) -> Again | None:
    """How to compute y = conv(z) once more in the backward pass; None where there is none."""
    node, dtype = z.grad_fn, y.dtype
    weight, bias = conv.weight, conv.bias
    if node is None:
        return None

    def compute() -> Tensor:
        with torch.no_grad():
            # What autocast has cast in the forward pass.
            bias_as_cast = None if bias is None else bias.to(dtype)
            z_as_cast = output_again(node).to(dtype)
            return conv._conv_forward(z_as_cast, weight.to(dtype), bias_as_cast)  # type: ignore[no-any-return]

    return compute
