"""Whether the tail of a block is fused: only where what is replaced is exactly what is imitated."""

from enum import Enum, auto

import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook

from mmse.models.attention import ChannelAttention


class Plain(Enum):
    """Why a block composes its tail of the modules."""

    NO_ATTENTION = auto()
    FOREIGN_ATTENTION = auto()
    SWITCHED_OFF = auto()
    NORM = auto()
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
_OWNERS = (
    (_BatchNorm, ('forward',)),
    (nn.ReLU, ('forward',)),
    (ChannelAttention, ('forward', 'gate', 'excite')),
)
_ORIGINALS = [(kind, name, getattr(kind, name)) for kind, names in _OWNERS for name in names]
_REPLACEABLE = {'forward', 'gate', 'excite'}


def why_not_imitated(attention: nn.Module | None, norm: nn.Module, relu: nn.Module) -> Plain | None:
    """Why the modules of a tail are none that the fused tail computes; None if they are."""
    if attention is None:
        return Plain.NO_ATTENTION
    if type(attention) is not ChannelAttention:
        return Plain.FOREIGN_ATTENTION
    if not isinstance(norm, _BatchNorm) or type(norm).forward is not _BatchNorm.forward:
        return Plain.NORM
    if norm.weight is None or norm.bias is None:
        return Plain.NORM_NOT_AFFINE
    return None if type(relu) is nn.ReLU else Plain.ACTIVATION


def why_changed(conv: nn.Module, *tail: nn.Module) -> Plain | None:
    """What a user has done to a convolution and the modules after it; None for nothing."""
    modules = [inner for module in tail for inner in module.modules()]
    if any('parametrizations' in module._modules for module in modules):
        return Plain.PARAMETRISED
    if any(not _REPLACEABLE.isdisjoint(vars(module)) for module in modules):
        return Plain.REPLACED_METHOD
    if any(getattr(kind, name) is not original for kind, name, original in _ORIGINALS):
        return Plain.REPLACED_METHOD
    global_hooks: bool = _has_any_global_hook()  # type: ignore[no-untyped-call]
    if global_hooks or _has_hooks(conv) or any(map(_has_hooks, modules)):
        return Plain.HOOKS
    return None


def why_transformed() -> Plain | None:
    """Whether the forward pass is recorded, or differentiated in a way that needs the modules."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
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
