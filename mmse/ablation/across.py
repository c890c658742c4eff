"""Contrasts of contrasts: does an effect differ between tasks?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmse.utils.errors import UserError
from mmse.utils.text import nearest

KEYS = ('contrast', 'of', 'against')


@dataclass(frozen=True)
class Across:
    """The mean effect on some tasks minus that on others, decided on before the trials.

    Metrics of different tasks have different units, so each effect counts in smallest effects of
    interest of its task.

    Args:
        name: Its name.
        contrast: Name of the contrast whose effects are compared.
        weights: Weight of each task; they add up to zero.
        description: What is compared, in words.
    """

    name: str
    contrast: str
    weights: Mapping[str, float]
    description: str


def parse_across(name: str, given: Any, contrasts: Sequence[str], tasks: Sequence[str]) -> Across:
    """Read one of the comparisons across tasks of a config.

    Args:
        name: Its name.
        given: ``dict(contrast=..., of=[...], against=[...])``: a contrast, and names of tasks.
        contrasts: Names of the contrasts.
        tasks: Names of the tasks.

    Raises:
        UserError: A key is missing or unknown, or there is no such contrast or task.
    """
    where = f'across.{name}'
    if not isinstance(given, Mapping) or set(given) != set(KEYS):
        raise UserError(f'{where}: {given!r} given; allowed: a dict of {", ".join(KEYS)}')
    if given['contrast'] not in contrasts:
        hint = nearest(str(given['contrast']), list(contrasts))
        raise UserError(f'{where}: there is no contrast {given["contrast"]}{hint}')
    weights: dict[str, float] = {}
    for side, sign in (('of', 1.0), ('against', -1.0)):
        named = given[side]
        if not isinstance(named, list | tuple) or not named:
            raise UserError(f'{where}.{side}: {named!r} given; allowed: a list of tasks')
        for task in named:
            if task not in tasks:
                hint = nearest(str(task), list(tasks))
                raise UserError(f'{where}.{side}: there is no task {task}{hint}')
            if task in weights:
                raise UserError(f'{where}: {task} stands in it twice')
            weights[task] = sign / len(named)
    of, against = (' and '.join(given[side]) for side in ('of', 'against'))
    description = f'{given["contrast"]} on {of} - on {against}, in smallest effects of interest'
    return Across(name, given['contrast'], weights, description)
