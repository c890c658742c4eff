"""No weight decay on the scalars that steer an attention, and nothing else changed.

In MMEngine one custom key wins a parameter, the longest that is a part of its name, and gives it
all its factors. A key that is added must therefore carry the factors of the key that would have
won.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

# Decay would pull them to 0 for no reason.
NO_DECAY = ('attention.alpha', 'attention.fusion_logits', 'attention.raw_temperature')


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
    if (wrapper.get('optimizer') or {}).get('weight_decay') is None:
        return []
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys: Mapping[str, Any] = paramwise.get('custom_keys') or {}
    added = {}
    for scalar in NO_DECAY:
        winners = {block: _winner(f'{block}.{scalar}', keys) for block in blocks}
        if all(len(winner or '') < len(scalar) for winner in winners.values()) and (
            len(set(winners.values())) == 1
        ):
            # The key that won everywhere, if there was one, loses to this one.
            added[scalar] = _factors(next(iter(winners.values())), keys)
        else:
            added |= {f'{b}.{scalar}': _factors(winner, keys) for b, winner in winners.items()}
    wrapper['paramwise_cfg'] = {**paramwise, 'custom_keys': {**keys, **added}}
    return [f'optim_wrapper: no weight decay on {", ".join(NO_DECAY)}']


def _winner(name: str, keys: Mapping[str, Any]) -> str | None:
    """The custom key whose factors MMEngine gives to a parameter."""
    matching = sorted(key for key in keys if key in name)
    return max(matching, key=len, default=None)


def _factors(winner: str | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    return {**(keys[winner] if winner is not None else {}), 'decay_mult': 0.0}
