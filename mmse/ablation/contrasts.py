"""Contrasts: what is compared with what, as weights of the arms that add up to zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from mmse.ablation.values import named_dict, text
from mmse.utils.errors import UserError
from mmse.utils.text import nearest

Levels = Mapping[str, str]


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the arms' metric, decided on before the trials.

    Args:
        name: Its name.
        weights: Weight of each arm; they add up to zero.
        description: What is compared, in words.
    """

    name: str
    weights: Mapping[str, float]
    description: str

    @property
    def is_interaction(self) -> bool:
        """Whether it is a difference of differences: positive weights then add up to 2, not 1."""
        return sum(weight for weight in self.weights.values() if weight > 0) > 1.5


def parse_contrast(
    name: str,
    given: Mapping[str, Any],
    arms: Mapping[str, Levels],
    factors: Mapping[str, Mapping[str, Any]],
    baseline: Levels,
) -> Contrast:
    """Read one contrast of a config.

    ``dict(of=..., against=...)`` is a difference. Of two arms, each is given by its name or by the
    levels of all factors. Of two levels of a factor, it is the mean over the pairs of arms that
    differ in nothing else, which in a full grid is the main effect. Without ``against``, the
    baseline levels of the same factors are taken.

    ``dict(interaction=dict(a=..., b=...))`` is how much the effect of one level, against its
    baseline, changes when the other factor goes from its baseline to the other level; the mean over
    the remaining factors is taken.

    Args:
        name: The contrast's name.
        given: Its dict.
        arms: The levels of every arm by the arm's name; none for an arm outside the grid.
        factors: The levels of every factor.
        baseline: The baseline level of every factor.

    Raises:
        UserError: It names an arm, factor or level that does not exist, or compares levels in
            which alone no two arms differ.
    """
    where = f'contrasts.{name}'
    keys = set(named_dict(given, where, "'of' and 'against', or of 'interaction'"))
    if keys == {'interaction'}:
        return _interaction(name, given['interaction'], arms, factors, baseline, where)
    if keys - {'of', 'against'} or 'of' not in keys:
        raise UserError(
            f'{where}: {", ".join(sorted(keys)) or "nothing"} given; allowed: of and against, or '
            'interaction'
        )
    of, against = given['of'], given.get('against')
    if against is None:
        if isinstance(of, str):
            raise UserError(f'{where}.against is missing: {of} has no baseline of its own')
        against = {factor: baseline[factor] for factor in of if factor in baseline}
    for key, side in (('of', of), ('against', against)):
        _check_side(side, arms, factors, f'{where}.{key}')
    if isinstance(of, str) or isinstance(against, str):
        weights = {_one_arm(of, arms, f'{where}.of'): 1.0}
        other = _one_arm(against, arms, f'{where}.against')
        if other in weights:
            raise UserError(f'{where}: {other} is compared with itself')
        return Contrast(name, {**weights, other: -1.0}, f'{_words(of)} - {_words(against)}')
    if set(of) != set(against):
        raise UserError(f'{where}: of and against name different factors')
    pairs = [
        (arm, other)
        for arm, levels in arms.items()
        if levels and _matches(levels, of)
        for other, others in arms.items()
        if others == {**levels, **against}
    ]
    if not pairs or of == against:
        raise UserError(f'{where}: no two arms differ in {", ".join(of)} alone')
    weights = {}
    for arm, other in pairs:
        weights[arm] = weights.get(arm, 0.0) + 1 / len(pairs)
        weights[other] = weights.get(other, 0.0) - 1 / len(pairs)
    over = f', mean of {len(pairs)} pairs' if len(pairs) > 1 else ''
    return Contrast(name, weights, f'{_words(of)} - {_words(against)}{over}')


def check_levels(levels: Levels, factors: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse factors and levels that do not exist.

    Raises:
        UserError: It names the place, what was given and what there is.
    """
    for name, level in levels.items():
        if name not in factors:
            raise UserError(f'{where}: there is no factor {name}' + nearest(name, list(factors)))
        if text(level, f'{where}.{name}') not in factors[name]:
            there = list(factors[name])
            raise UserError(f'{where}.{name}: there is no level {level}' + nearest(level, there))


def _interaction(
    name: str,
    levels: Levels,
    arms: Mapping[str, Levels],
    factors: Mapping[str, Mapping[str, Any]],
    baseline: Levels,
    where: str,
) -> Contrast:
    check_levels(
        named_dict(levels, f'{where}.interaction', 'levels'), factors, f'{where}.interaction'
    )
    if len(levels) != 2 or any(baseline[f] == level for f, level in levels.items()):
        raise UserError(f'{where}.interaction: give two factors, each off its baseline')
    first, second = levels
    corners = []
    for rest in [a for a in arms.values() if a and _matches(a, levels)]:
        corner: dict[str, float] = {}
        for on_first, on_second in product((True, False), repeat=2):
            wanted = {
                **rest,
                first: rest[first] if on_first else baseline[first],
                second: rest[second] if on_second else baseline[second],
            }
            corner |= {
                arm: 1.0 if on_first == on_second else -1.0
                for arm, there in arms.items()
                if there == wanted
            }
        if len(corner) == 4:
            corners.append(corner)
    if not corners:
        raise UserError(f'{where}.interaction: the grid has not all four arms that it needs')
    weights: dict[str, float] = {}
    for corner in corners:
        for arm, sign in corner.items():
            weights[arm] = weights.get(arm, 0.0) + sign / len(corners)
    return Contrast(
        name,
        weights,
        f'what {first}={levels[first]} adds with {second}={levels[second]}, beyond what it adds '
        f'with {second}={baseline[second]}',
    )


def _matches(levels: Levels, some: Levels) -> bool:
    return all(levels[factor] == level for factor, level in some.items())


def _check_side(
    side: Any, arms: Mapping[str, Levels], factors: Mapping[str, Mapping[str, Any]], where: str
) -> None:
    if isinstance(side, str):
        if side not in arms:
            raise UserError(f'{where}: there is no arm {side!r}; there are: {"; ".join(arms)}')
        return
    if not isinstance(side, Mapping) or not side:
        raise UserError(f"{where}: {side!r} given; allowed: an arm's name, or a dict of levels")
    check_levels(side, factors, where)


def _one_arm(side: Any, arms: Mapping[str, Levels], where: str) -> str:
    if isinstance(side, str):
        return side
    found = [name for name, levels in arms.items() if levels and _matches(levels, side)]
    if len(found) != 1:
        raise UserError(f'{where}: {_words(side)} names {len(found)} arms; beside an arm name one')
    return found[0]


def _words(side: Any) -> str:
    return side if isinstance(side, str) else ', '.join(f'{k}={v}' for k, v in side.items())
