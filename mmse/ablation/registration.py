"""What stood in the plan of a study before its first trial ended, and what came later."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from mmse.ablation.plan import Plan, PlannedAcross, PlannedContrast, PlannedTask, read_file
from mmse.ablation.records import read_trials
from mmse.utils.files import write_json

CHANGED = ', changed'  # the end of the name of what once was something else
Compared = TypeVar('Compared', PlannedContrast, PlannedAcross)


def update_plan(folder: Path, plan: Plan) -> Plan:
    """Write the plan into the folder of its results.

    A contrast is registered if it stood in the plan before the first trial ended, with the same
    metrics, smallest effects, smallest dose and training, and an outcome likewise; one that is
    added later is exploratory. One that is left out or changed later stays as it was, so that the
    others are corrected for it. Seeds beyond the last look that stood in the plan are exploratory.
    What stood in the plan then is kept in ``registered.json`` from the first change on, so changing
    it back is no loss. Seeds that a config adds for a later look count from the first trial of one
    of them on: other seeds in their place make the study exploratory.

    Returns:
        The plan as it was written.
    """
    file, first = folder / 'plan.json', folder / 'registered.json'
    if file.is_file() and any((folder / 'trials').glob('*.json')):
        registered = read_file(first if first.is_file() else file)
        plan = _kept_to(registered, plan, _counted(folder))
        if not first.is_file() and _plain(plan) != _plain(registered):
            write_json(first, asdict(registered))
    else:
        first.unlink(missing_ok=True)
    write_json(file, asdict(plan))
    return plan


def _plain(plan: Plan) -> Any:
    return json.loads(json.dumps(asdict(plan)))


def _counted(folder: Path) -> Sequence[int]:
    """The seeds of a plan's looks, with those that were added later and of which a trial ended."""
    last = read_file(folder / 'plan.json')
    added = last.seeds[len(last.counted) : max(last.looks, default=0)]
    ended = {trial.seed for trial in read_trials(folder)}
    return [*last.counted, *added] if ended & set(added) else last.counted


def _kept_to(old: Plan, new: Plan, counted: Sequence[int]) -> Plan:
    """A plan with what an older one, for which trials have ended, had registered."""
    recipes = {(v.task, v.arm): v.recipe for v in old.variants}
    # What shapes a pretraining is part of the recipes.
    asked, before = (
        [replace(task, secondary=(), exploratory=(), pretraining=None) for task in plan.tasks]
        for plan in (new, old)
    )
    same_question = asked == before and old.smallest_dose == new.smallest_dose
    same_question &= all(recipes.get((v.task, v.arm), v.recipe) == v.recipe for v in new.variants)
    common = min(len(counted), len(new.seeds))
    same_seeds = list(new.seeds[:common]) == list(counted[:common])
    arms = {arm.name for arm in new.arms}
    names = {task.name for task in new.tasks}
    contrasts = _registered(new.contrasts, old.contrasts, same_question, arms)
    across = _registered(new.across, old.across, same_question, names)
    kept = {contrast.name for contrast in contrasts}
    tasks = {task.name: task for task in old.tasks}
    return replace(
        new,
        looks=old.looks if same_seeds else (),
        counted=counted,
        tasks=[_with_outcomes_of(task, tasks.get(task.name, task)) for task in new.tasks],
        contrasts=contrasts,
        across=[each for each in across if each.contrast in kept],
    )


def _with_outcomes_of(task: PlannedTask, old: PlannedTask) -> PlannedTask:
    """A task whose new and changed outcomes are exploratory, beside all those of the old one."""
    registered = [outcome for outcome in old.secondary if outcome.name not in old.exploratory]
    names = {outcome.name for outcome in registered}
    late = [
        replace(outcome, name=outcome.name + CHANGED * (outcome.name in names))
        for outcome in task.secondary
        if outcome not in registered
    ]
    return replace(
        task, secondary=[*registered, *late], exploratory=[outcome.name for outcome in late]
    )


def _registered(
    new: Sequence[Compared], old: Sequence[Compared], same_question: bool, there: set[str]
) -> list[Compared]:
    """What is compared, and whether it was registered; what was left out or changed stays."""
    before = {each.name: each for each in old if each.registered and there >= set(each.weights)}
    kept = [replace(each, registered=same_question) for each in before.values()]
    late = [each for each in new if not _same(each, before.get(each.name))]
    changed = {each.name for each in late} & set(before)
    return kept + [
        replace(each, name=each.name + CHANGED * (each.name in changed), registered=False)
        for each in late
    ]


def _same(a: Compared, b: Compared | None) -> bool:
    """Whether two of one name compare the same, whatever the words for it."""
    if b is None or dict(a.weights) != dict(b.weights):
        return False
    return getattr(a, 'contrast', None) == getattr(b, 'contrast', None)
