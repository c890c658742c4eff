"""What the residual blocks share: ``relu(attention(branch(x)) + shortcut(x))``.

The tail of a block (last norm, attention, addition, relu) is computed as one fused function where
that is possible, and composed of its modules elsewhere. The shortcut is never gated.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.utils.checkpoint as cp
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmse.models.attention import ChannelAttention
from mmse.models.fused import Again, fused_tail, norm_relu
from mmse.models.kernel_support import why_no_kernels
from mmse.models.path import (
    Plain,
    is_idle,
    may_be_kept,
    may_recompute,
    why_changed,
    why_not_imitated,
    why_transformed,
)
from mmse.models.recompute import again as how_again
from mmse.models.recompute import conv_of
from mmse.models.resolve import Entry, resolve_attention

Settings = Mapping[str, Any]


class ResidualBlock(BaseModule):
    """Base of the two blocks: norms by name, the choice of the tail's path, checkpointing.

    A subclass makes the modules and sets ``with_cp``, ``fused``, ``recompute`` and ``downsample``.
    """

    last: ClassVar[int]  # convolutions and norms in the branch
    plugin_names: Mapping[str, Sequence[str]] = {}
    attention: nn.Module | None
    drop_path: nn.Module
    downsample: nn.Module | None
    relu: nn.Module
    with_cp: bool
    fused: bool | str
    recompute: str | None

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

    def add_drop_path(self, rate: float) -> None:
        """Add stochastic depth: in training, samples skip the branch with this probability."""
        self.drop_path = DropPath(rate) if rate > 0 else nn.Identity()

    @property
    def channel_attention(self) -> ChannelAttention | None:
        """The attention, if it is of mmse and not a module that somebody has put in its place."""
        return self.attention if isinstance(self.attention, ChannelAttention) else None

    @property
    def last_conv(self) -> nn.Module:
        """The branch's last convolution."""
        conv: nn.Module = getattr(self, f'conv{self.last}')
        return conv

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
        attention = self.channel_attention
        return 1.0 if attention is None else attention.identity_gain

    def convolve(self, x: Tensor) -> tuple[Tensor, Again | None]:
        """The residual branch up to its last convolution's output, a tensor of its own.

        Beside it: how to compute it once more in the backward pass, or None.
        """
        y, again = self.conv1(x), None
        for index in range(1, self.last):
            norm, conv = self.norm(index), getattr(self, f'conv{index + 1}')
            if self.recompute and may_recompute(y, norm, self.relu, conv):
                z = norm_relu(y, norm)  # type: ignore[arg-type]
                y = conv_of(z, conv)
                again = how_again(z, conv, y) if self.recompute == 'expand' else None
            else:
                y = conv(self._plugged(self.relu(norm(y)), f'after_conv{index}'))
        return y, again

    def _plugged(self, x: Tensor, position: str) -> Tensor:
        for name in self.plugin_names.get(position, ()):
            x = getattr(self, name)(x)
        return x

    def why_plain(self) -> Plain | None:
        """Why the tail is composed of its modules; None where it is fused."""
        if self.attention is None:
            return Plain.NO_ATTENTION
        return self._why_composed() if self.fused else Plain.SWITCHED_OFF

    def _why_no_kernels(self) -> str | None:
        norm: Any = self.norm(self.last)
        if isinstance(norm, nn.SyncBatchNorm):
            return 'the norm is synchronised'
        return why_no_kernels(norm.weight.device.type)

    def _why_composed(self) -> Plain | None:
        attention, norm, relu = self.attention, self.norm(self.last), self.relu
        if reason := why_not_imitated(attention, norm, relu):
            return reason
        if self.plugin_names.get('after_conv3'):
            return Plain.PLUGINS
        if not is_idle(self.drop_path):
            return Plain.DROP_PATH
        changed = why_changed(self.last_conv, attention, norm, relu, self.drop_path)
        return changed or why_transformed()

    @property
    def path(self) -> str:
        """How the tail is computed, in words: ``'fused'``, or ``'plain'`` with the reason."""
        reason = self.why_plain()
        if reason is None:
            path = 'fused'
            if self.fused == 'kernels':
                why = self._why_no_kernels()
                path += ', by kernels' if why is None else f', without kernels: {why}'
            return path if self.recompute is None else f'{path}, recompute={self.recompute!r}'
        norm = type(self.norm(self.last)).__name__
        drop = type(self.drop_path)
        words = {
            Plain.NO_ATTENTION: 'no attention',
            Plain.FOREIGN_ATTENTION: f'{type(self.attention).__name__} as attention',
            Plain.EXCITATION: 'other layers in the attention',
            Plain.SWITCHED_OFF: 'fused=False',
            Plain.NORM: norm,
            Plain.DEVICE: 'its device is neither CPU nor CUDA',
            Plain.NORM_NOT_AFFINE: f'{norm} without weight and bias',
            Plain.ACTIVATION: f'{type(self.relu).__name__} as relu',
            Plain.PARAMETRISED: 'parametrised norm',
            Plain.REPLACED_METHOD: 'replaced methods',
            Plain.PLUGINS: 'plugins after the attention',
            Plain.DROP_PATH: 'stochastic depth'
            if drop is DropPath
            else f'{drop.__name__} as drop_path',
            Plain.HOOKS: 'hooks',
            Plain.TRACED: 'traced',
            Plain.TRANSFORMED: 'torch.func or forward-mode derivatives',
        }
        return f'plain ({words[reason]})'

    def _compute(self, x: Tensor) -> Tensor:
        y, again = self.convolve(x)
        norm = self.norm(self.last)
        # On both paths before the last norm: synchronised norms exchange messages in this order.
        shortcut = x if self.downsample is None else self.downsample(x)
        # An empty batch, one value per channel, and symbolic or fake tensors are left to the norm.
        if type(y) is Tensor and y.numel() > y.shape[1] and self._is_one_function(again):
            kernels = self.fused == 'kernels' and self._why_no_kernels() is None
            reuse = self.owns_output
            return fused_tail(y, shortcut, norm, self.attention, reuse, again, kernels)  # type: ignore[arg-type]
        out: Tensor = norm(y)
        if self.attention is not None:
            out = self.attention(out)
        out = self.drop_path(self._plugged(out, f'after_conv{self.last}'))
        out = out + shortcut if self._is_kept(norm) else out.add_(shortcut)
        out = self.relu(out)
        return out

    def _is_one_function(self, again: Again | None) -> bool:
        """Whether the tail is computed as one; without attention only where that keeps less."""
        if self.attention is None:
            return again is not None and self._why_composed() is None
        return self.why_plain() is None

    def _is_kept(self, norm: nn.Module) -> bool:
        """Whether somebody may hold the branch's output, which then must not be overwritten."""
        if self.attention is None:
            return may_be_kept((norm, self.drop_path))
        known = type(self.attention) is ChannelAttention
        return not known or may_be_kept((norm, self.attention, self.drop_path))

    @property
    def owns_output(self) -> bool:
        """Whether nobody else can hold the last convolution's output."""
        own = type(self).convolve.__module__ == __name__ and 'convolve' not in vars(self)
        return own and type(self.last_conv) is nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        if self.with_cp and x.requires_grad:
            out: Tensor = cp.checkpoint(self._compute, x, use_reentrant=False)
            return out
        return self._compute(x)
