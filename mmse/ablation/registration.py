"""What stood in the plan of a study before its first trial ended, and what came later."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from mmse.ablation.outcomes import Outcome
from mmse.ablation.plan import Plan, PlannedAcross, PlannedContrast, PlannedTask, read_file
from mmse.utils.files import write_json

Compared = TypeVar('Compared', PlannedContrast, PlannedAcross)


def update_plan(folder: Path, plan: Plan) -> Plan:
    """Write the plan into the folder of its results.

    A contrast is registered if it stood in the plan before the first trial ended, with the same
    metrics, smallest effects, smallest dose and training, and an outcome likewise; one that is
    added or changed later is exploratory. One that is left out later stays, so that the others are
    corrected for it. Seeds beyond the last look that stood in the plan are exploratory. What stood
    in the plan then is kept in ``registered.json`` from the first change on, so changing it back
    is no loss.

    Returns:
        The plan as it was written.
    """
    file, first = folder / 'plan.json', folder / 'registered.json'
    if file.is_file() and any((folder / 'trials').glob('*.json')):
        registered = read_file(first if first.is_file() else file)
        plan = _kept_to(registered, plan)
        if not first.is_file() and _plain(plan) != _plain(registered):
            write_json(first, asdict(registered))
    else:
        first.unlink(missing_ok=True)
    write_json(file, asdict(plan))
    return plan


def _plain(plan: Plan) -> Any:
    return json.loads(json.dumps(asdict(plan)))


def _kept_to(old: Plan, new: Plan) -> Plan:
    """A plan with what an older one, for which trials have ended, had registered."""
    recipes = {(v.task, v.arm): v.recipe for v in old.variants}
    # What shapes a pretraining is part of the recipes.
    asked, before = (
        [replace(task, secondary=(), exploratory=(), pretraining=None) for task in plan.tasks]
        for plan in (new, old)
    )
    same_question = asked == before and old.smallest_dose == new.smallest_dose
    same_question &= all(recipes.get((v.task, v.arm), v.recipe) == v.recipe for v in new.variants)
    common = min(len(old.counted), len(new.seeds))
    same_seeds = list(new.seeds[:common]) == list(old.counted[:common])
    arms = {arm.name for arm in new.arms}
    names = {task.name for task in new.tasks}
    contrasts = _registered(new.contrasts, old.contrasts, same_question, arms)
    across = _registered(new.across, old.across, same_question, names)
    kept = {contrast.name for contrast in contrasts}
    outcomes = {task.name: task.secondary for task in old.tasks}
    return replace(
        new,
        looks=old.looks if same_seeds else (),
        counted=old.counted,
        tasks=[_with_outcomes_of(task, outcomes.get(task.name, ())) for task in new.tasks],
        contrasts=contrasts,
        across=[each for each in across if each.contrast in kept],
    )


def _with_outcomes_of(task: PlannedTask, old: Sequence[Outcome]) -> PlannedTask:
    """A task whose new outcomes are exploratory, with the old ones that it has left out."""
    names = {outcome.name for outcome in task.secondary}
    return replace(
        task,
        secondary=[*task.secondary, *(outcome for outcome in old if outcome.name not in names)],
        exploratory=[outcome.name for outcome in task.secondary if outcome not in old],
    )


def _registered(
    new: Sequence[Compared], old: Sequence[Compared], same_question: bool, there: set[str]
) -> list[Compared]:
    """What is compared, and whether it was registered; what was left out since then stays."""
    kept = [replace(each, registered=same_question and each in old) for each in new]
    names = {each.name for each in new}
    return kept + [
        each
        for each in old
        if each.registered and each.name not in names and there >= set(each.weights)
    ]
