"""What the arms of a study are trained on, read from its config and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmse.ablation.outcomes import Outcome, parse_outcome
from mmse.ablation.values import check_keys, named_dict, positive, text
from mmse.utils.errors import UserError

OVERRIDES = 'dotted keys of the base config with their values'
PRETRAINING_KEYS = {'base', 'metric', 'overrides'}
TASK_KEYS = PRETRAINING_KEYS | {
    'attention_lr_mult',
    'pretraining',
    'secondary',
    'smallest_effect',
}


@dataclass(frozen=True)
class Pretraining:
    """The training of a plain network, from whose backbone all arms of a seed start.

    Args:
        base: The training config; its attention is left out.
        metric: The metric that says how good the network has become.
        overrides: Dotted keys of ``base`` with new values.
    """

    base: str
    metric: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What every arm is trained on.

    Args:
        name: Its name, empty if it is the only one.
        base: The training config, as tools/train.py takes it.
        metric: The metric that is compared, by the name that the evaluator of ``base`` gives it;
            its value in the last validation counts, and larger is better.
        smallest_effect: The smallest difference of the metric that matters, in the metric's unit.
        overrides: Dotted keys of ``base`` with the values that every arm gets.
        secondary: What else is compared.
        attention_lr_mult: The attention's learning rate over that of its block; None leaves it to
            ``base``.
        pretraining: What gives the backbones' weights; None leaves them to ``base``.
    """

    name: str
    base: str
    metric: str
    smallest_effect: float
    overrides: Mapping[str, Any]
    secondary: Sequence[Outcome] = ()
    attention_lr_mult: float | None = None
    pretraining: Pretraining | None = None


def parse_tasks(raw: Mapping[str, Any], path: str) -> list[Task]:
    """The tasks of a study's config.

    Args:
        raw: The config, with the keys of one task or with ``tasks``.
        path: What it is called in errors.

    Raises:
        UserError: A key is missing, unknown or given twice, or a value is not allowed.
    """
    if 'tasks' not in raw:
        return [_task('', {k: raw[k] for k in TASK_KEYS if k in raw}, f'{path}: ')]
    if twice := sorted(TASK_KEYS & set(raw)):
        raise UserError(f'{path}: {twice[0]} stands beside tasks: move it into each of them')
    tasks = named_dict(raw['tasks'], f'{path}: tasks', 'tasks')
    if not tasks:
        raise UserError(f'{path}: tasks is empty')
    given = {f'{path}: tasks.{name}': (name, task) for name, task in tasks.items()}
    return [
        _task(name, named_dict(task, where, 'what a task has'), f'{where}.')
        for where, (name, task) in given.items()
    ]


def _task(name: str, raw: Mapping[str, Any], where: str) -> Task:
    check_keys(raw, TASK_KEYS, where)
    _check_there(raw, ('base', 'metric', 'smallest_effect'), where)
    return Task(
        name,
        text(raw['base'], f'{where}base'),
        text(raw['metric'], f'{where}metric'),
        positive(raw['smallest_effect'], f'{where}smallest_effect'),
        named_dict(raw.get('overrides', {}), f'{where}overrides', OVERRIDES),
        [
            parse_outcome(outcome, given, f'{where}secondary.{outcome}')
            for outcome, given in named_dict(
                raw.get('secondary', {}), f'{where}secondary', 'outcomes'
            ).items()
        ],
        positive(raw['attention_lr_mult'], f'{where}attention_lr_mult')
        if raw.get('attention_lr_mult') is not None
        else None,
        _pretraining(raw.get('pretraining'), f'{where}pretraining'),
    )


def _pretraining(raw: Any, where: str) -> Pretraining | None:
    if raw is None:
        return None
    raw = named_dict(raw, where, 'base, metric and overrides')
    check_keys(raw, PRETRAINING_KEYS, f'{where}: ')
    _check_there(raw, ('base', 'metric'), f'{where}.')
    return Pretraining(
        text(raw['base'], f'{where}.base'),
        text(raw['metric'], f'{where}.metric'),
        named_dict(raw.get('overrides', {}), f'{where}.overrides', OVERRIDES),
    )


def _check_there(raw: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if key not in raw:
            raise UserError(f'{where}{key} is missing')
