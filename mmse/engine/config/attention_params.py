"""What the optimizer does with an attention: no decay on its scalars, a learning rate of its own.

In MMEngine one custom key wins a parameter, the longest that is a part of its name, and gives it
all its factors. A key that is added must therefore carry the factors of the key that would have
won.
"""

import inspect
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.registry import OPTIMIZERS

from mmse.utils.errors import UserError

# Decay would pull them to 0 for no reason.
NO_DECAY = ('attention.alpha', 'attention.fusion_logits', 'attention.raw_temperature')
PARAMETERS = (
    *(f'attention.{layer}.{of}' for layer in ('fc1', 'fc2') for of in ('weight', 'bias')),
    *NO_DECAY,
)


def spare_from_decay(wrapper: Any, blocks: Sequence[str]) -> list[str]:
    """Exempt alpha, fusion logits and temperature of an optimizer's config from weight decay.

    Args:
        wrapper: The config of the optimizer wrapper; changed in place. Left alone if it has a
            constructor of its own, or no weight decay.
        blocks: Names of the blocks that have attention, such as ``backbone.layer2.0``.

    Returns:
        One line for the change; none if nothing was changed.
    """
    if not isinstance(wrapper, MutableMapping) or 'constructor' in wrapper:
        return []
    optimizer = wrapper.get('optimizer') or {}
    if optimizer.get('weight_decay') is None:
        if not (default := _default_decay(optimizer.get('type'))):
            return []
        optimizer['weight_decay'] = default  # MMEngine has no factors of what it is not told
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys: Mapping[str, Any] = paramwise.get('custom_keys') or {}
    added: dict[str, Any] = {}
    for scalar in NO_DECAY:
        added |= _added(
            scalar, blocks, keys, lambda _, winner: {**_factors(winner, keys), 'decay_mult': 0.0}
        )
    wrapper['paramwise_cfg'] = {**paramwise, 'custom_keys': {**keys, **added}}
    return [f'optim_wrapper: no weight decay on {", ".join(NO_DECAY)}']


def _default_decay(kind: Any) -> float:
    """The weight decay of an optimizer whose config gives none; AdamW has one."""
    found = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(found, type):
        return 0.0
    parameter = inspect.signature(found).parameters.get('weight_decay')
    given = parameter.default if parameter is not None else 0.0
    return float(given) if isinstance(given, int | float) else 0.0


def could_have_a_rate(wrapper: Any) -> bool:
    """Whether an optimizer's config gives the attention no learning rate of its own, but could."""
    if not isinstance(wrapper, Mapping) or 'optimizer' not in wrapper or 'constructor' in wrapper:
        return False
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    return not any('attention' in key and 'lr_mult' in keys[key] for key in keys)


def set_attention_rate(wrapper: Any, blocks: Sequence[str], factor: float) -> list[str]:
    """Give the attention a learning rate of its own: so many times that of its block's first layer.

    Weight decay and other factors stay as they are.

    Args:
        wrapper: The config of the optimizer wrapper; changed in place.
        blocks: Names of the blocks that have attention.
        factor: The attention's learning rate over that of the convolutions beside it.

    Returns:
        One line for the change.

    Raises:
        UserError: The factor is not above 0, or the wrapper's constructor sets the rates itself.
    """
    if not 0 < factor < math.inf:
        raise UserError(f'learning rate of the attention: times {factor} given; allowed: above 0')
    if not isinstance(wrapper, MutableMapping) or 'optimizer' not in wrapper:
        raise UserError('optim_wrapper has no optimizer whose learning rates could be set')
    if constructor := wrapper.get('constructor'):
        raise UserError(
            f'optim_wrapper.constructor {constructor} sets the learning rate of every parameter '
            'itself: the attention cannot be given one of its own beside it'
        )
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys: Mapping[str, Any] = paramwise.get('custom_keys') or {}
    added: dict[str, Any] = {}
    for name in PARAMETERS:
        # MMEngine's factors for biases and other vectors do not reach what a custom key has won.
        rules = ['bias_decay_mult'] * name.endswith('bias')
        rules += ['flat_decay_mult'] * (not name.endswith('weight'))
        decay = [paramwise[rule] for rule in rules if paramwise.get(rule) is not None]
        own = {'decay_mult': decay[0]} if decay else {}

        def change(block: str, winner: str | None, own: Mapping[str, Any] = own) -> dict[str, Any]:
            beside = _factors(_winner(f'{block}.conv1.weight', keys), keys).get('lr_mult', 1.0)
            factors = own if winner is None else _factors(winner, keys)
            return {**factors, 'lr_mult': beside * factor}

        added |= _added(name, blocks, keys, change)
    wrapper['paramwise_cfg'] = {**paramwise, 'custom_keys': {**keys, **added}}
    return [f'optim_wrapper: learning rate of the attention {factor:g} times that of its block']


def _added(
    name: str,
    blocks: Sequence[str],
    keys: Mapping[str, Any],
    change: Callable[[str, str | None], dict[str, Any]],
) -> dict[str, Any]:
    """Custom keys that change the factors of one parameter in every block.

    Args:
        name: The parameter, from the attention on.
        blocks: Names of the blocks.
        keys: The custom keys that there are.
        change: The new factors, from a block and the key that has won its parameter so far.
    """
    winners = {block: _winner(f'{block}.{name}', keys) for block in blocks}
    changed = {block: change(block, winner) for block, winner in winners.items()}
    alike = all(factors == changed[blocks[0]] for factors in changed.values())
    if alike and all(len(w or '') < len(name) or w == name for w in winners.values()):
        # One key for all blocks, which wins against all that have won before.
        return {name: changed[blocks[0]]} if blocks else {}
    return {f'{block}.{name}': factors for block, factors in changed.items()}


def _winner(name: str, keys: Mapping[str, Any]) -> str | None:
    """The custom key whose factors MMEngine gives to a parameter."""
    matching = sorted(key for key in keys if key in name)
    return max(matching, key=len, default=None)


def _factors(winner: str | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    return {} if winner is None else dict(keys[winner])
