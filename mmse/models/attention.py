"""ChannelAttention: squeeze, excitation, gate and recalibration in one module."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmse.models import functional
from mmse.models.keys import RECORD
from mmse.models.meaning import check_meaning, read_record, record
from mmse.models.resolve import resolve_attention
from mmse.models.settings import describe
from mmse.registry import MODELS
from mmse.utils.errors import UserError


@MODELS.register_module()
class ChannelAttention(nn.Module):
    """Channel attention of the squeeze-and-excitation family.

    ::

        s = squeeze(x)                      average, max or both (summed or softmax-fused)
        z = fc2(act(fc1(s)))                hidden = max(min_hidden, C // reduction)
        g = sigmoid(z / T)                  or hardsigmoid(z / T)
        y = x * g                           or, with residual gating, x * (1 + alpha * g)

    A parameter exists only where the forward pass uses it. Source: https://arxiv.org/abs/1709.01507
    (``preset='se'``); ``mmse.models.functional`` names those of the other parts.

    Args:
        in_channels: Channels C of the feature map.
        preset: A name in ``mmse.models.settings.PRESETS``; the keys given beside it change it.
        **settings: The keys of ``mmse.models.AttentionSettings``, with its defaults.

    Raises:
        UserError: (a ValueError) for an unknown preset, key or value; it says what is allowed.
    """

    def __init__(self, in_channels: int, *, preset: str | None = None, **settings: Any) -> None:
        super().__init__()
        if not isinstance(in_channels, int) or in_channels < 1:
            raise UserError(f'ChannelAttention: in_channels={in_channels!r}; allowed: an int >= 1')
        resolved = resolve_attention({'preset': preset, **settings}, 'ChannelAttention')
        assert resolved is not None
        self.settings = resolved
        self.in_channels = in_channels
        self.hidden_channels = max(resolved.min_hidden, in_channels // resolved.reduction)
        self.fc1 = nn.Linear(in_channels, self.hidden_channels, bias=resolved.bias)
        self.fc2 = nn.Linear(self.hidden_channels, in_channels, bias=resolved.bias)
        self.fusion_logits = nn.Parameter(torch.zeros(2)) if resolved.fusion == 'softmax' else None
        self.alpha: Tensor | float | None = resolved.alpha
        if resolved.learnable_alpha:
            self.alpha = nn.Parameter(torch.tensor([resolved.alpha]))
        if resolved.learnable_temperature:
            start = functional.inverse_softplus(resolved.temperature)
            self.raw_temperature = nn.Parameter(torch.tensor([start]))
        self.random_start = True
        self.watcher: Callable[[Tensor, Tensor], None] | None = None

    @property
    def temperature(self) -> Tensor | float:
        """T as the forward pass uses it."""
        if self.settings.learnable_temperature:
            return F.softplus(self.raw_temperature)
        return self.settings.temperature

    @property
    def identity_gain(self) -> float:
        """The gain of every channel while fc2 is zero: the gate is 1/2 whatever the input."""
        alpha = self.alpha.item() if isinstance(self.alpha, Tensor) else self.alpha
        return functional.gain(0.5, self.settings.residual, alpha)

    def gate(self, s_avg: Tensor | None, s_max: Tensor | None) -> Tensor:
        """The gate g of each channel, (B, C), from average and maximum, (B, C) each or None.

        ``watcher``, if there is one, is shown every gate and what it was made from, (S, B, C).
        """
        s = functional.fuse(s_avg, s_max, self.fusion_logits)
        z = self.fc2(functional.ACTIVATIONS[self.settings.act](self.fc1(s)))
        g = functional.gate(z, self.settings.gate, self.temperature)
        if self.watcher is not None:
            squeezed = [s for s in (s_avg, s_max) if s is not None]
            self.watcher(g.detach(), torch.stack(squeezed).detach())
        return g

    def excite(self, s_avg: Tensor | None, s_max: Tensor | None) -> Tensor:
        """The gain of each channel, g or 1 + alpha * g, (B, C)."""
        gate = self.gate(s_avg, s_max)
        return functional.gain(gate, self.settings.residual, self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Recalibrate a feature map, (B, C, H, W) to (B, C, H, W) in the same dtype."""
        gain = self.excite(*functional.squeeze(x, self.settings.squeeze))
        return functional.recalibrate(x, gain)

    def get_extra_state(self) -> Tensor:
        """The settings, which are saved with the weights; see ``mmse.models.meaning``."""
        return record(self.settings)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *lists: Any,
    ) -> None:
        # MMEngine's loader comes through here as well as torch's.
        layers = f'{prefix}fc1.weight', f'{prefix}fc2.weight'
        there = [key for key in layers if key in state_dict]
        recorded = state_dict.pop(prefix + RECORD, None)
        if recorded is None and len(there) < len(layers):  # weights may come without a record
            missing_keys.append(prefix + RECORD)
        settings = None if recorded is None else read_record(recorded)
        if settings is not None and there:
            check_meaning(self.settings, settings, prefix.rstrip('.') or 'the attention')
        for key in there:
            # Other packages, and mmse before 0.1, have 1x1 convolutions in the place of the layers.
            if state_dict[key].ndim == 4:
                state_dict[key] = state_dict[key].flatten(1)
        given, own = state_dict.get(layers[1]), self.fc2.weight
        if given is not None and (
            given.is_meta or own.is_meta or not torch.equal(given.to(own), own)
        ):
            self.random_start = False
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *lists
        )

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {describe(self.settings)}'
