"""The command ``plan``: what a study will run, printed before it runs."""

from collections.abc import Sequence
from pathlib import Path

from mmse.ablation.folders import Folders
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.looks import LEVEL, levels
from mmse.ablation.pilot import read_pilot
from mmse.ablation.plan import plan_of
from mmse.ablation.questions import PRIMARY, questions
from mmse.ablation.stats import SECONDARY, reach
from mmse.ablation.study import Study
from mmse.ablation.tasks import Task
from mmse.ablation.timing import trial_seconds
from mmse.ablation.variants import Trial, Variant, resolve, trials_of
from mmse.utils.errors import UserError
from mmse.utils.text import duration


def print_preview(study: Study, results: Path) -> None:
    """Print tasks, arms, contrasts, trials, power and time of a study; nothing is written.

    Where the data are not there, it says what they would tell.

    Args:
        study: The study.
        results: Folder of its results, which need not exist.

    Raises:
        UserError: The study does not fit its base configs.
    """
    variants = resolve(study)
    for task in study.tasks:
        _print_arms(study, task, [v for v in variants if v.task is task])
    print('Contrasts, registered when the first trial ends:')
    for contrast in study.contrasts:
        print(f'  {contrast.name}: {contrast.description}')
    for across in study.across:
        print(f'  {across.name}: {across.description}')
    print(
        f'{len(variants) * len(study.seeds)} trials: {len(study.arms)} arms x '
        f'{len(study.tasks)} tasks x {len(study.seeds)} seeds; results version {RESULTS_VERSION}'
    )
    plan = plan_of(study, [Trial(variant, study.seeds[0], '') for variant in variants])
    primary, secondary = (
        [q for q in questions(plan, []) if (q.outcome == PRIMARY) is first]
        for first in (True, False)
    )
    for look, level in zip(study.looks, levels(study.looks), strict=True):
        if len(study.looks) > 1:
            print(f'Look at {look} seeds, which spends {level:.2g} of the level of {LEVEL}:')
        print(reach(look, len(primary), level))
        if secondary:
            print(reach(look, len(secondary), level, SECONDARY))
    for task in study.tasks:
        _print_pilot(study, task, variants, results)
    seconds = 0.0
    for task in study.tasks:
        seconds += _print_time(study, task, [v for v in variants if v.task is task], results)
    if seconds:
        print(f'Time of what is left, one trial after the other: about {duration(seconds)}')


def _print_arms(study: Study, task: Task, variants: Sequence[Variant]) -> None:
    print(
        f'Task {task.name or study.name}: {task.metric} of {task.base}, smallest effect of '
        f'interest {task.smallest_effect:g}'
    )
    width = max(len(v.arm.name) for v in variants)
    for variant in variants:
        print(f'  {variant.arm.name:<{width}}  {variant.attention}')


def _print_pilot(study: Study, task: Task, variants: Sequence[Variant], results: Path) -> None:
    """Print what a pilot has measured: by it, and by nothing else, a trial's size is chosen."""
    name = task.name or study.name
    try:
        pilot = read_pilot(results, study, variants, task.name)
    except UserError as error:
        print(f'{name}: {error}')
        return
    if pilot is None:
        print(
            f'{name}: whether the plain arm learns and the attention acts is not measured: '
            'plan --pilot trains both once, and keeps nothing else'
        )
        return
    curve = ', '.join(f'{value:.4g} at {step:g}' for step, value in pilot.curve)
    _, dose, looks = pilot.dose_curve[-1]
    enough = 'at least' if dose >= study.smallest_dose else 'LESS THAN'
    print(f'{name}, pilot: {task.metric} of the plain arm {curve} iterations')
    print(
        f'{name}, pilot: dose of {pilot.arm} {dose:.3f}, {enough} the {study.smallest_dose:g} '
        f'that a verdict takes; {looks:.3f} of it depends on the image'
    )
    if pilot.owes is not None:
        print(
            f'{name}, pilot: put back to its start, that attention changes {task.metric} by '
            f'{"more" if pilot.owes else "NO MORE"} than a third of the smallest effect'
        )


def _print_time(study: Study, task: Task, variants: Sequence[Variant], results: Path) -> float:
    """Print how many trials of a task have ended and how long one takes; the seconds left."""
    name = task.name or study.name
    try:
        trials = trials_of(variants, study.seeds)
        one = trial_seconds(variants[0].cfg)
        before = variants[0].pretraining
        first = trial_seconds(before.cfg) if before else 0.0
    except UserError as error:
        print(f'{name}: what has ended and how long a trial takes is not known: {error}')
        return 0.0
    folders = Folders(results, Path())
    waiting = [trial for trial in trials if not folders.record(trial).is_file()]
    left = len(waiting)
    print(
        f'{name}: {len(trials) - left} of {len(trials)} trials have ended, on data '
        f'{trials[0].data[:12]}; a trial takes about {duration(one)}, measured here in one process'
    )
    if before is None:
        return one * left
    seeds = len({trial.seed for trial in waiting})
    print(
        f'{name}: the arms of a seed start from a plain network trained on {before.task.base}, '
        f'about {duration(first)} a seed'
    )
    return one * left + first * seeds
