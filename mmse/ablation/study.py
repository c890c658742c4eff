"""The question of an ablation, read from a config and checked.

A study trains arms on one or several tasks with the same seeds, and compares them by contrasts that
were decided on beforehand. The arms are the combinations of the levels of its factors, and others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mmse.ablation.across import Across, parse_across
from mmse.ablation.contrasts import Contrast, check_levels, parse_contrast
from mmse.ablation.looks import check_looks
from mmse.ablation.tasks import OVERRIDES, TASK_KEYS, Task, parse_tasks
from mmse.ablation.values import check_keys, is_count, named_dict, one_of, positive
from mmse.engine.config import read_file
from mmse.utils.errors import UserError

KEYS = TASK_KEYS | {
    'across',
    'arms',
    'baseline',
    'contrasts',
    'exclude',
    'factors',
    'grid',
    'looks',
    'pilot',
    'seeds',
    'smallest_dose',
    'start',
    'tasks',
}
DICTS = {  # the keys that are dicts, and of what
    'factors': 'factors',
    'baseline': 'a level of each factor',
    'arms': 'arms',
    'contrasts': 'contrasts',
    'across': 'comparisons across tasks',
}
GRIDS = ('full', 'one_at_a_time')
STARTS = ('identity', 'default')
# A branch whose gain has moved by less than a twentieth is still nearly that of a plain network.
SMALLEST_DOSE = 0.05


@dataclass(frozen=True)
class Arm:
    """One variant.

    Args:
        name: Its name; ``factor=level, ...`` for an arm of the grid.
        levels: The level of each factor; empty for an arm outside the grid.
        overrides: Dotted keys of the training config with the values that make the arm.
    """

    name: str
    levels: Mapping[str, str]
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A question: tasks, arms, seeds and contrasts; see ``read_study`` for the config.

    The numbers of seeds at which verdicts are given are in ``looks``.
    """

    name: str
    tasks: list[Task]
    factors: Mapping[str, list[str]]
    arms: list[Arm]
    contrasts: list[Contrast]
    seeds: list[int]
    start: str
    looks: list[int]
    smallest_dose: float
    pilot: str | None
    across: Sequence[Across] = ()


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read the config of an ablation.

    Its keys are

    - ``base``, ``metric``, ``smallest_effect``, ``overrides``, ``secondary``,
      ``attention_lr_mult`` and ``pretraining`` of the task, see ``mmse.ablation.tasks.Task``; or,
      for several tasks, ``tasks``: by name, a dict of these;
    - ``factors``: by factor and level, the dict of overrides that the level stands for;
    - ``baseline``: the level of each factor that the other levels are compared with;
    - ``grid``: ``'full'`` for all combinations of levels, or ``'one_at_a_time'`` for those that
      differ from the baseline in one factor;
    - ``exclude``: a list of dicts of levels; an arm that has all levels of one of them is left out;
    - ``arms``: by name, the overrides of an arm outside the grid;
    - ``contrasts``: by name, see ``mmse.ablation.contrasts.parse_contrast``;
    - ``across``: by name, see ``mmse.ablation.across.parse_across``;
    - ``seeds``: a number of seeds, or a list of them;
    - ``looks``: the numbers of seeds at which verdicts are given, by default at the last only;
    - ``smallest_dose``: arms whose attention has moved less are not tested; see
      ``moved`` of ``mmse.gates.dose.dose``;
    - ``pilot``: the arm whose dose a pilot measures, by default the first with attention;
    - ``start``: ``'identity'``, where every arm begins as the network without attention, or
      ``'default'``, where the attention begins as torch draws it.

    Args:
        path: The config file, or ``mmse::ablations/NAME.py``; see
            ``mmse.engine.config.find_config``.
        overrides: Dotted keys of the ablation's config with new values.

    Raises:
        UserError: A key is missing or unknown, or a value does not fit the others.
    """
    cfg = read_file(path)
    try:
        cfg.merge_from_dict(dict(overrides or {}))
    except Exception as error:  # keys and values are the user's: anything can go wrong
        raise UserError(f'{path} could not be read: {type(error).__name__}: {error}') from error
    raw: dict[str, Any] = cfg.to_dict()
    check_keys(raw, KEYS, f'{path}: ')
    if 'factors' not in raw and 'arms' not in raw:
        raise UserError(f'{path}: there is nothing to compare: give factors, arms or both')
    for key, what in DICTS.items():
        raw[key] = named_dict(raw.get(key, {}), f'{path}: {key}', what)
    factors = {
        name: named_dict(levels, f'factors.{name}', 'levels')
        for name, levels in raw['factors'].items()
    }
    baseline = _baseline(factors, raw['baseline'])
    arms = _arms(raw, factors, baseline)
    levels_of = {arm.name: arm.levels for arm in arms}
    seeds = _seeds(raw.get('seeds'))
    tasks = parse_tasks(raw, str(path))
    return Study(
        name=study_name(path),
        tasks=tasks,
        factors={name: list(levels) for name, levels in factors.items()},
        arms=arms,
        contrasts=[
            parse_contrast(name, contrast, levels_of, factors, baseline)
            for name, contrast in raw['contrasts'].items()
        ],
        seeds=seeds,
        start=one_of(raw.get('start', 'identity'), STARTS, 'start'),
        looks=check_looks(raw.get('looks'), len(seeds)),
        smallest_dose=positive(raw.get('smallest_dose', SMALLEST_DOSE), 'smallest_dose'),
        pilot=None if raw.get('pilot') is None else one_of(raw['pilot'], list(levels_of), 'pilot'),
        across=[
            parse_across(name, given, list(raw['contrasts']), [task.name for task in tasks])
            for name, given in raw['across'].items()
        ],
    )


def study_name(path: str | Path) -> str:
    """What the folders of a study are called: its config's file name without the ending."""
    return Path(str(path).split('::')[-1]).stem


def arm_name(levels: Mapping[str, str], baseline: Mapping[str, str]) -> str:
    """The name of an arm of the grid: its levels, those of ``baseline`` left out."""
    parts = [f'{f}={level}' for f, level in levels.items() if baseline.get(f) != level]
    return ', '.join(parts) or 'baseline'


def _baseline(factors: Mapping[str, Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, str]:
    for name, levels in factors.items():
        if len(levels) < 2:
            raise UserError(f'factors.{name} has {len(levels)} level; it needs two or more')
        for level, overrides in levels.items():
            named_dict(overrides, f'factors.{name}[{level!r}]', OVERRIDES)
        if name not in given:
            raise UserError(f'baseline.{name} is missing: one of {", ".join(levels)}')
    check_levels(given, factors, 'baseline')
    return {name: given[name] for name in factors}


def _arms(
    raw: Mapping[str, Any], factors: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, str]
) -> list[Arm]:
    excluded = raw.get('exclude', [])
    if not isinstance(excluded, list | tuple):
        raise UserError(f'exclude: {excluded!r} given; allowed: a list of dicts of levels')
    for i, levels in enumerate(excluded):
        check_levels(named_dict(levels, f'exclude[{i}]', 'levels'), factors, f'exclude[{i}]')
    unnamed: Mapping[str, str] = {}
    if one_of(raw.get('grid', 'full'), GRIDS, 'grid') == 'full':
        grid = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
    else:
        unnamed = baseline
        grid = [dict(baseline)]
        grid += [
            {**baseline, name: level}
            for name, levels in factors.items()
            for level in levels
            if level != baseline[name]
        ]
    arms = [
        Arm(name, {}, named_dict(overrides, f'arms.{name}', OVERRIDES))
        for name, overrides in raw['arms'].items()
    ]
    for levels in grid if factors else []:
        if any(set(e.items()) <= set(levels.items()) for e in excluded):
            continue
        overrides = {
            k: v for name, level in levels.items() for k, v in factors[name][level].items()
        }
        arms.append(Arm(arm_name(levels, unnamed), levels, overrides))
    if len(arms) < 2:
        raise UserError(f'there is nothing to compare: the study has {len(arms)} arm')
    return arms


def _seeds(given: Any) -> list[int]:
    seeds = list(range(given)) if is_count(given, 1) else given
    if (
        not isinstance(seeds, Sequence)
        or not seeds
        or not all(is_count(s, 0) for s in seeds)
        or len(set(seeds)) != len(seeds)
    ):
        raise UserError(f'seeds: {given!r} given; allowed: a number of seeds, or a list of them')
    return list(seeds)
