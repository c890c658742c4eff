"""Whether the tail of a block is fused: only where what is replaced is exactly what is imitated."""

from collections.abc import Iterable
from enum import Enum, auto

import torch
import torch.autograd.forward_ad as forward_ad
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.attention import ChannelAttention
from mmse.models.policies import POLICIES
from mmse.models.versions import has_global_hooks, is_compiling


class Plain(Enum):
    """Why a block composes its tail of the modules."""

    NO_ATTENTION = auto()
    FOREIGN_ATTENTION = auto()
    EXCITATION = auto()
    SWITCHED_OFF = auto()
    NORM = auto()
    DEVICE = auto()
    NORM_NOT_AFFINE = auto()
    ACTIVATION = auto()
    PARAMETRISED = auto()
    REPLACED_METHOD = auto()
    PLUGINS = auto()
    DROP_PATH = auto()
    HOOKS = auto()
    TRACED = auto()
    TRANSFORMED = auto()


# Methods as they were when this module was imported: one that is replaced shows as a difference.
_ORIGINALS = (
    (_BatchNorm, 'forward', _BatchNorm.forward),
    (nn.SyncBatchNorm, 'forward', nn.SyncBatchNorm.forward),
    (nn.ReLU, 'forward', nn.ReLU.forward),
    (nn.Linear, 'forward', nn.Linear.forward),
    (nn.Conv2d, 'forward', nn.Conv2d.forward),
    (ChannelAttention, 'forward', ChannelAttention.forward),
    (ChannelAttention, 'excite', ChannelAttention.excite),
    (ChannelAttention, 'gate', ChannelAttention.gate),
)

_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def why_not_imitated(attention: nn.Module | None, norm: nn.Module, relu: nn.Module) -> Plain | None:
    """Why the modules of a tail are none that the fused tail computes; None if they are."""
    if attention is not None:
        if type(attention) is not ChannelAttention:
            return Plain.FOREIGN_ATTENTION
        if not all(type(layer) is nn.Linear for layer in attention._modules.values()):
            return Plain.EXCITATION
    if not isinstance(norm, _BatchNorm) or type(norm).forward not in _NORM_FORWARDS:
        return Plain.NORM
    if norm.weight is None or norm.bias is None:
        return Plain.NORM_NOT_AFFINE
    if norm._modules:
        return Plain.PARAMETRISED
    if norm.weight.device.type not in POLICIES:
        return Plain.DEVICE
    return None if type(relu) is nn.ReLU else Plain.ACTIVATION


def why_changed(conv: nn.Module, attention: nn.Module | None, *others: nn.Module) -> Plain | None:
    """What a user has done to modules that the fused tail imitates; None for nothing.

    Args:
        conv: The last convolution of the branch, which is called.
        attention: The attention, or None.
        *others: The rest of what the tail is made of.
    """
    # Asked in every forward pass of every block, so it is written to take microseconds.
    for kind, name, original in _ORIGINALS:
        if getattr(kind, name) is not original:
            return Plain.REPLACED_METHOD
    if has_global_hooks() or _has_hooks(conv):
        return Plain.HOOKS
    layers: Iterable[nn.Module | None] = ()
    if attention is not None:
        if 'excite' in attention.__dict__ or 'gate' in attention.__dict__:
            return Plain.REPLACED_METHOD
        layers = (attention, *attention._modules.values())
    for module in (*layers, *others):
        if module is None:
            continue
        if 'forward' in module.__dict__:
            return Plain.REPLACED_METHOD
        if _has_hooks(module):
            return Plain.HOOKS
    return None


def may_recompute(y: Tensor, norm: nn.Module, relu: nn.Module, conv: nn.Module) -> bool:
    """Whether conv(relu(norm(y))) may be computed as ``mmse.models.recompute`` does."""
    if type(y) is not Tensor or y.numel() <= y.shape[1] or not torch.is_grad_enabled():
        return False
    if type(conv) is not nn.Conv2d or 'forward' in conv.__dict__:
        return False
    why = why_not_imitated(None, norm, relu) or why_changed(conv, None, norm, relu)
    return (why or why_transformed()) is None


def may_be_kept(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks or replaced methods of modules may keep what these return."""
    return has_global_hooks() or any(_has_hooks(m) or 'forward' in m.__dict__ for m in modules)


def is_idle(drop_path: nn.Module) -> bool:
    """Whether stochastic depth hands its input on."""
    if type(drop_path) is DropPath:
        return not drop_path.training
    return type(drop_path) is nn.Identity


def why_transformed() -> Plain | None:
    """Whether the forward pass is recorded, or differentiated in a way that needs the modules."""
    if torch.jit.is_tracing() or is_compiling():  # type: ignore[attr-defined, no-untyped-call]
        return Plain.TRACED
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return Plain.TRANSFORMED
    return None


def _has_hooks(module: nn.Module) -> bool:
    """Whether hooks expect calls of the module itself."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
