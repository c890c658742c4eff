"""The settings of an attention: their defaults, what is allowed, and the presets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from numbers import Real
from typing import Any, NamedTuple

from mmse.utils.errors import UserError
from mmse.utils.text import not_one_of


class Rule(NamedTuple):
    """What a key of the config language takes, and when it has an effect.

    Args:
        allowed: The allowed values in words, for errors and documentation.
        accepts: Whether a value is allowed.
        choices: The allowed values, where they are names.
        idle: Why the key has no effect beside the other settings; None where it has one.
        unused: The value that stands for "no effect".
    """

    allowed: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    idle: Callable[['AttentionSettings'], str | None] = lambda settings: None
    unused: Any = None


def _one_of(*names: str) -> Rule:
    return Rule(', '.join(map(repr, names)), lambda value: value in names, names)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


_FLAG = Rule('True or False', lambda value: isinstance(value, bool))
_COUNT = Rule(
    'an integer >= 1', lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1
)
_NUMBER = Rule('a finite number', _is_number)
_POSITIVE = Rule('a finite number > 0', lambda value: _is_number(value) and value > 0)


def _nothing_to_fuse(settings: 'AttentionSettings') -> str | None:
    if settings.squeeze == 'avg+max':
        return None
    return f'squeeze={settings.squeeze!r} leaves nothing to fuse'


def _no_alpha(settings: 'AttentionSettings') -> str | None:
    return None if settings.residual else 'residual=False has no alpha'


def _key(default: Any, rule: Rule, **changes: Any) -> Any:
    return field(default=default, metadata={'rule': rule._replace(**changes)})


def rule_of(key: 'Field[Any]') -> Rule:
    """The rule of a field of ``AttentionSettings``."""
    rule: Rule = key.metadata['rule']
    return rule


@dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """The settings of one block's attention.

    A key that has no effect beside the others has the value None (``learnable_alpha``: False).

    Args:
        squeeze: What each channel's map is squeezed to: its average, its maximum, or both.
        fusion: How average and maximum become one descriptor: by learned softmax weights that start
            equal, or by their sum. Only with both squeezes.
        reduction: Channels C over hidden channels of the excitation.
        min_hidden: Fewest hidden channels: there are max(min_hidden, C // reduction).
        act: Activation between the two layers of the excitation.
        gate: The function that turns the excitation into a gate between 0 and 1.
        temperature: T, which the excitation is divided by; above 1 it flattens the gate.
        learnable_temperature: Learn T, as softplus(raw_temperature).
        residual: Multiply by 1 + alpha * gate instead of by the gate.
        alpha: Strength of residual gating. Only with ``residual``.
        learnable_alpha: Learn alpha. Only with ``residual``.
        bias: Biases in both layers of the excitation.

    Raises:
        UserError: A value is not allowed; it names the key and what is allowed.
    """

    squeeze: str = _key('avg+max', _one_of('avg', 'max', 'avg+max'))
    fusion: str | None = _key('softmax', _one_of('softmax', 'sum'), idle=_nothing_to_fuse)
    reduction: int = _key(16, _COUNT)
    min_hidden: int = _key(4, _COUNT)
    act: str = _key('silu', _one_of('silu', 'relu'))
    gate: str = _key('sigmoid', _one_of('sigmoid', 'hardsigmoid'))
    temperature: float = _key(1.0, _POSITIVE)
    learnable_temperature: bool = _key(False, _FLAG)
    residual: bool = _key(False, _FLAG)
    alpha: float | None = _key(1.0, _NUMBER, idle=_no_alpha)
    learnable_alpha: bool = _key(False, _FLAG, idle=_no_alpha, unused=False)
    bias: bool = _key(True, _FLAG)

    def __post_init__(self) -> None:
        for key in fields(self):
            rule, value = rule_of(key), getattr(self, key.name)
            idle = rule.idle(self) is not None
            if not rule.accepts(value) and not (idle and value == rule.unused):
                raise UserError(f'{key.name}: {_refusal(value, key.name, rule)}')
            if isinstance(key.default, float) or idle:
                object.__setattr__(self, key.name, rule.unused if idle else float(value))

    def to_dict(self) -> dict[str, Any]:
        """The keys that have an effect, with their values."""
        return {k: v for k, v in asdict(self).items() if rule_of(KEYS[k]).idle(self) is None}


KEYS: dict[str, 'Field[Any]'] = {key.name: key for key in fields(AttentionSettings)}

_SUM: dict[str, Any] = {'fusion': 'sum'}
# What each preset changes of the defaults: the forms that the method went through, oldest first.
PRESETS: dict[str, Mapping[str, Any]] = {
    'se': {'squeeze': 'avg', 'act': 'relu', 'min_hidden': 1},
    'se_silu': {'squeeze': 'avg', 'min_hidden': 1},
    'se_max': {'squeeze': 'max', 'act': 'relu', 'min_hidden': 1},
    'se_avgmax': {'fusion': 'sum', 'act': 'relu', 'min_hidden': 1},
    'se_safe': {'squeeze': 'avg', 'act': 'relu'},
    'se_stable': {'squeeze': 'avg'},
    'se_avgmax_stable': _SUM,
    'se_gated': _SUM,
    'sepp': _SUM,
    'sepp_v2': {},
    'sepp_v2_residual': {'residual': True, 'learnable_alpha': True},
}
# Presets that are another one under the name by which its gate or its squeezes were studied.
ALIASES = {'se_gated': 'se_avgmax_stable', 'sepp': 'se_avgmax_stable'}


def describe(settings: AttentionSettings | None) -> str:
    """A block's attention in a few words."""
    if settings is None:
        return 'no attention'
    learned_t = ' learned' if settings.learnable_temperature else ''
    learned_alpha = ' learned' if settings.learnable_alpha else ''
    parts = [
        settings.squeeze + (f' ({settings.fusion})' if settings.fusion else ''),
        f'C/{settings.reduction} (min {settings.min_hidden}), {settings.act}',
        settings.gate,
        f'T={settings.temperature:g}{learned_t}',
        f'residual alpha={settings.alpha:g}{learned_alpha}'
        if settings.residual
        else 'multiplicative',
        *([] if settings.bias else ['no bias']),
    ]
    return ', '.join(parts)


def _refusal(value: Any, key: str, rule: Rule) -> str:
    if rule.choices:
        return not_one_of(value, rule.choices, f'a {key}')
    return f'{value!r} given; allowed: {rule.allowed}'
