"""What the residual blocks share: ``relu(attention(branch(x)) + shortcut(x))``.

The tail of a block (last norm, attention, addition, relu) is computed as one fused function where
that is possible, and composed of its modules elsewhere. The shortcut is never gated.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, ClassVar

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.attention import ChannelAttention
from mmse.models.fused import fused_tail
from mmse.models.resolve import Entry, resolve_attention

Settings = Mapping[str, Any]


class Plain(Enum):
    """Why a block composes its tail of the modules."""

    NO_ATTENTION = auto()
    SWITCHED_OFF = auto()
    NORM = auto()
    NORM_NOT_AFFINE = auto()
    PLUGINS = auto()
    HOOKS = auto()
    TRACED = auto()


class ResidualBlock(BaseModule):
    """Base of the two blocks: norms by name, the choice of the tail's path, checkpointing.

    A subclass makes the modules, sets ``with_cp``, ``fused`` and ``downsample``, and says how its
    branch is computed (``convolve``).
    """

    last: ClassVar[int]  # convolutions and norms in the branch
    plugin_names: Mapping[str, Sequence[str]] = {}
    attention: ChannelAttention | None
    downsample: nn.Module | None
    with_cp: bool
    fused: bool

    def add_norm(self, norm_cfg: Settings, channels: int, index: int) -> None:
        """Add the norm after convolution ``index`` under MMCV's name for it (bn1, gn1, ...)."""
        name, norm = build_norm_layer(norm_cfg, channels, postfix=index)
        setattr(self, f'norm{index}_name', name)
        self.add_module(name, norm)

    def add_attention(self, attention: Entry, channels: int) -> None:
        """Add the attention that a config entry describes, or None."""
        settings = resolve_attention(attention)
        self.attention = (
            None if settings is None else ChannelAttention(channels, **settings.to_dict())
        )

    def norm(self, index: int) -> nn.Module:
        """The norm after convolution ``index``."""
        norm: nn.Module = getattr(self, getattr(self, f'norm{index}_name'))
        return norm

    @property
    def norm1(self) -> nn.Module:
        """Norm after the first convolution."""
        return self.norm(1)

    @property
    def norm2(self) -> nn.Module:
        """Norm after the second convolution."""
        return self.norm(2)

    @property
    def last_norm_name(self) -> str:
        """MMCV's name for the branch's last norm."""
        name: str = getattr(self, f'norm{self.last}_name')
        return name

    @property
    def identity_gain(self) -> float:
        """What the branch is multiplied by while fc2 of the attention is zero."""
        return 1.0 if self.attention is None else self.attention.identity_gain

    def convolve(self, x: Tensor) -> Tensor:
        """The residual branch up to its last convolution's output, a tensor of its own."""
        raise NotImplementedError

    def last_plugins(self, x: Tensor) -> Tensor:
        """Plugins between the attention and the addition."""
        return x

    def why_plain(self) -> Plain | None:
        """Why the tail is composed of its modules; None where it is fused."""
        norm = self.norm(self.last)
        if self.attention is None:
            return Plain.NO_ATTENTION
        if not self.fused:
            return Plain.SWITCHED_OFF
        if not isinstance(norm, _BatchNorm) or type(norm).forward is not _BatchNorm.forward:
            return Plain.NORM
        if not norm.affine:
            return Plain.NORM_NOT_AFFINE
        if self.plugin_names.get('after_conv3'):
            return Plain.PLUGINS
        conv: nn.Module = getattr(self, f'conv{self.last}')
        if any(map(_has_hooks, (conv, norm, self.relu, *self.attention.modules()))):
            return Plain.HOOKS
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
            return Plain.TRACED
        return None

    @property
    def path(self) -> str:
        """How the tail is computed, in words: ``'fused'``, or ``'plain'`` with the reason."""
        reason = self.why_plain()
        if reason is None:
            return 'fused'
        norm = type(self.norm(self.last)).__name__
        words = {
            Plain.NO_ATTENTION: 'no attention',
            Plain.SWITCHED_OFF: 'fused=False',
            Plain.NORM: norm,
            Plain.NORM_NOT_AFFINE: f'{norm} without weight and bias',
            Plain.PLUGINS: 'plugins after the attention',
            Plain.HOOKS: 'hooks',
            Plain.TRACED: 'traced',
        }
        return f'plain ({words[reason]})'

    def _compute(self, x: Tensor) -> Tensor:
        y = self.convolve(x)
        norm = self.norm(self.last)
        # An empty batch, one value per channel, and symbolic or fake tensors are left to the norm.
        if self.why_plain() is None and type(y) is Tensor and y.numel() > y.shape[1]:
            shortcut = x if self.downsample is None else self.downsample(x)
            return fused_tail(y, shortcut, norm, self.attention)  # type: ignore[arg-type]
        out: Tensor = norm(y)
        if self.attention is not None:
            out = self.attention(out)
        out = self.last_plugins(out)
        out += x if self.downsample is None else self.downsample(x)
        out = self.relu(out)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        if self.with_cp and x.requires_grad:
            out: Tensor = cp.checkpoint(self._compute, x, use_reentrant=False)
            return out
        return self._compute(x)


def _has_hooks(module: nn.Module) -> bool:
    """Whether hooks expect calls of the module itself."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
