"""What a study will run, before it runs: for a terminal."""

from pathlib import Path

from mmse.ablation.estimate import trial_seconds
from mmse.ablation.fingerprint import code_fingerprint
from mmse.ablation.plan import resolve, trials_of
from mmse.ablation.run import Folders, duration
from mmse.ablation.stats import LEVEL, pairs_needed, smallest_p
from mmse.ablation.study import Study
from mmse.utils.errors import UserError


def show_plan(study: Study, results: Path) -> None:
    """Print tasks, arms, contrasts, trials, time and power of a study.

    Raises:
        UserError: The study does not fit its base configs.
    """
    variants = resolve(study)
    trials = trials_of(study, variants)
    folders = Folders(results, Path())
    done = sum(folders.record(trial).is_file() for trial in trials)
    for task in study.tasks:
        print(
            f'Task {task.name or study.name}: {task.metric} of {task.base}, smallest effect of '
            f'interest {task.smallest_effect:g}'
        )
        mine = [v for v in variants if v.task is task]
        width = max(len(v.arm.name) for v in mine)
        for variant in mine:
            print(f'  {variant.arm.name:<{width}}  {variant.attention}')
    print('Contrasts, registered when the first trial ends:')
    for contrast in study.contrasts:
        print(f'  {contrast.name}: {contrast.description}')
    print(
        f'{len(trials)} trials: {len(study.arms)} arms x {len(study.tasks)} tasks x '
        f'{len(study.seeds)} seeds; {done} have ended; code {code_fingerprint()}'
    )
    print(_power(len(study.seeds), len(study.contrasts) * len(study.tasks)))
    seconds = 0.0
    for task in study.tasks:
        own = [trial for trial in trials if trial.variant.task is task]
        try:
            one = trial_seconds(own[0].variant.cfg)
        except UserError as error:
            print(f'Time of {task.name or study.name}: not measured: {error}')
            continue
        of = f' of {task.name}' if task.name else ''
        print(f'Time of a trial{of}: about {duration(one)}, measured here in one process')
        seconds += one * sum(not folders.record(trial).is_file() for trial in own)
    if seconds:
        print(f'Time of what is left, one trial after the other: about {duration(seconds)}')


def _power(seeds: int, contrasts: int) -> str:
    smallest = smallest_p(seeds)
    text = (
        f'{seeds} seeds: the smallest two-sided p of the sign-flip test is 2/2^{seeds} = '
        f'{smallest:.2g}'
    )
    if not contrasts:
        return text + '; no contrast is registered, so every comparison will be exploratory'
    needed = pairs_needed(contrasts)
    if seeds < needed:
        return (
            f'{text}; with {contrasts} contrasts, Holm-corrected, this can never reach {LEVEL}: '
            f'that takes {needed} seeds'
        )
    return f'{text}, {min(1.0, contrasts * smallest):.2g} corrected for {contrasts} contrasts'
