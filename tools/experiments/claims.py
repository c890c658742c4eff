"""Write ``results/claims.md``: what the method says, and what the trials of each study say to it.

``python tools/experiments/claims.py`` reads ``results/ablations/`` and nothing else.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmse.ablation.plan import read_plan
from mmse.ablation.summary import Summary, TaskSummary, summarise
from mmse.ablation.verdicts import NOT_YET, ContrastSummary
from mmse.ablation.verdicts import OPEN as OPEN_VERDICTS
from mmse.utils.files import write_text

RESULTS = Path('results')
HEAD = """# Claims

What the method says, one row a claim and a study. Written by `python tools/experiments/claims.py`
from the trial files.

- **Dose**: how far the attention of the arms moved from its start; what is left of it without the
  factor that all channels of a block have in common; and the part of it that depends on the image.
  The least of the arms that are compared
  ([what it is](../docs/ablations.md#what-the-attention-did)).
- **Effect**: the mean of the paired differences with its interval, at the look that decided it or
  the last that was reached; nothing before the first look.
- **Verdict**: by the rules that stood in the plan before the first trial. Each study has an error
  level of 5 % of its own, and another for its secondary outcomes.

"""
# What is said, with the contrast that tests it and, where it is not the metric, its outcome.
Asked = Mapping[str, tuple[str, str]]
SATURATED, DIVERGED, SPIKES = 'saturated gates', 'diverged', 'loss spikes'
EFFECTS: Asked = {
    'avg+max squeeze helps': ('avg+max squeeze', ''),
    'Residual gating helps': ('residual gating', ''),
    'The two help each other': ('interaction', ''),
    'Attention with both helps a plain ResNet': ('both against plain', ''),
}
BOTH: Asked = EFFECTS | {
    'avg+max squeeze (softmax) saturates fewer gates': ('avg+max squeeze', SATURATED),
    'Residual gating saturates fewer gates': ('residual gating', SATURATED),
}
PARTS: Asked = {
    'Max squeeze is better than average': ('max for avg', ''),
    'avg+max squeeze is better than average': ('avg+max for avg', ''),
    'Softmax fusion is better than a sum': ('softmax for sum', ''),
    'Softmax fusion saturates fewer gates than a sum': ('softmax for sum', SATURATED),
    'A temperature of 2 is better than 1': ('T = 2', ''),
    'A temperature of 2 saturates fewer gates than 1': ('T = 2', SATURATED),
    'A learned temperature is better than 1': ('T learned', ''),
    'Residual gating with a fixed alpha helps': ('residual, alpha fixed', ''),
    'Residual gating with a learned alpha helps': ('residual, alpha learned', ''),
    'A hardsigmoid gate costs nothing in the metric': ('hardsigmoid', ''),
    'ReLU is worse than SiLU': ('relu for silu', ''),
    'C/8 is better than C/16': ('C/8 for C/16', ''),
    'At least 1 hidden channel is worse than at least 4': ('min_hidden 1 for 4', ''),
}
STEADY: Asked = {
    f'Residual gating {does} at {lr} times the learning rate': (f'residual gating at x {lr}', of)
    for lr in (4, 16)
    for does, of in (('helps', ''), ('diverges less', DIVERGED), ('has fewer spikes', SPIKES))
}
SQUEEZE: Asked = {'avg+max squeeze helps': ('avg+max squeeze', '')}
DENSE: Asked = {'avg+max squeeze helps more': ('dense tasks beyond classification', '')}
PRETRAINED = 'backbones from ImageNet, larger networks and images, longer training'
ZERO = '[branches that start at zero](README.md#the-start-of-the-branches)'
REST = 'larger networks and images, longer and pretrained training'
SMALL = f'{ZERO}, {REST}'
NO_PLAIN = 'plain networks at these rates'
# With the default start of the branches the plain FCN is much better.
NOT_ZERO = f'{ZERO} (about 7 mIoU better in two seeds), {REST}'


@dataclass(frozen=True)
class Tested:
    """What a study says on one of its tasks.

    Args:
        study: Its name.
        on: What it is made on, in words.
        claims: What is said.
        silent: What the study cannot speak of.
        task: Name of the task, where the study has several; without, what compares them.
    """

    study: str
    on: str
    claims: Asked
    silent: str
    task: str = ''


# In the order of their worth.
STUDIES = (
    Tested('squeeze_x_residual_det', 'detection', BOTH, SMALL),
    Tested('squeeze_x_residual_seg', 'segmentation', BOTH, NOT_ZERO),
    Tested('default_start_det', 'detection, random gates', BOTH, SMALL),
    Tested('default_start_seg', 'segmentation, random gates', BOTH, NOT_ZERO),
    Tested('squeeze_x_residual_bccd', 'BCCD', BOTH, SMALL),
    Tested('squeeze_x_residual_camvid', 'CamVid', BOTH, SMALL),
    Tested('pretrained_bccd', 'BCCD, pretrained', BOTH, PRETRAINED),
    Tested('pretrained_camvid', 'CamVid, pretrained', BOTH, PRETRAINED),
    Tested('checklist_det', 'detection', PARTS, SMALL),
    Tested('checklist_seg', 'segmentation', PARTS, NOT_ZERO),
    Tested('steadiness_det', 'detection', STEADY, f'{NO_PLAIN}, {SMALL}'),
    Tested('steadiness_seg', 'segmentation', STEADY, f'{NO_PLAIN}, {NOT_ZERO}'),
    Tested('squeeze_by_task', 'classification', SQUEEZE, SMALL, 'classification'),
    Tested('squeeze_by_task', 'detection, beside a classifier', SQUEEZE, SMALL, 'detection'),
    Tested(
        'squeeze_by_task', 'segmentation, beside a classifier', SQUEEZE, NOT_ZERO, 'segmentation'
    ),
    Tested('squeeze_by_task', 'dense tasks less classification', DENSE, SMALL),
)
OPEN_CLAIMS = {
    'full scale': '`..._coco.py`, `..._ade20k.py` ([cost](../docs/scale.md))',
    'mixed precision': 'needs a GPU',
}
OPEN = """## Not asked yet

Studies without trials were left for want of time; the last two rows need a GPU.
"""
END = """
*hardsigmoid is cheaper on CPUs* is a matter of time, not of seeds: in onnxruntime
[it is not](README.md#hardsigmoid-on-a-cpu), in float and in int8.

## What came before

[earlier/](earlier/) holds older trials. They neither support the claims nor speak against them,
because their attention hardly moved from its start, or had hardly anything to act on
([why](README.md#what-the-older-trials-cannot-show)).
"""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    said: str
    study: str
    cells: tuple[str, ...]


def studied() -> dict[str, Summary]:
    """The studies that have trials."""
    folders = {tested.study: RESULTS / 'ablations' / tested.study for tested in STUDIES}
    return {n: summarise(f) for n, f in folders.items() if (f / 'plan.json').is_file()}


def rows(found: dict[str, Summary]) -> list[Row]:
    """Every claim of these studies; the columns of the table from dose to verdict."""
    table = []
    for tested in STUDIES:
        if tested.study not in found:
            continue
        summary = found[tested.study]
        tasks = [task for task in summary.tasks if task.name == tested.task]
        asked = [c for task in tasks for c in (*task.contrasts, *task.secondary)]
        for said, (name, outcome) in tested.claims.items():
            contrast = next(
                c for c in asked or summary.across if (c.outcome, c.name) == (outcome, name)
            )
            unit = outcome or (tasks[0].metric_label if tasks else 'smallest effects of interest')
            page = f'[{tested.study}](ablations/{tested.study}/report.md)'
            effect = f'{_effect(contrast, unit)}; {len(contrast.estimate.differences)} seeds'
            dose = _dose(tasks or summary.tasks, tested.study, name)
            cells = (dose, effect, contrast.verdict, tested.silent)
            where = f'{page}, {name}{outcome and ": "}{outcome}'
            table.append(Row(f'{said} ({tested.on})', where, cells))
    return table


def _effect(contrast: ContrastSummary, unit: str) -> str:
    low, high = contrast.estimate.t_interval
    if contrast.verdict.startswith(NOT_YET) or not math.isfinite(low):
        return '-'
    digits = max(1, contrast.digits - 1)
    values = (f'{value:+.{digits}f}' for value in (contrast.estimate.mean, low, high))
    mean, low_text, high_text = values
    if low == high:
        return f'{mean} {unit}, the same in all seeds'
    return f'{mean} ({low_text} to {high_text}, {contrast.coverage}) {unit}'


def _dose(tasks: Sequence[TaskSummary], study: str, contrast: str) -> str:
    plan = read_plan(RESULTS / 'ablations' / study)
    contrast = next((a.contrast for a in plan.across if a.name == contrast), contrast)
    weights = next(c.weights for c in plan.contrasts if c.name == contrast)
    doses = [
        [
            dose
            for task in tasks
            for arm in task.arms
            if arm.name in weights and (dose := arm.median_dose(key)) is not None
        ]
        for key in ('moved', 'within', 'over_images')
    ]
    if not all(doses):
        return '-'
    moved, within, looks = map(min, doses)
    return f'{moved:.2f}, {within:.2f} within blocks, {looks:.3f} by the image'


def others(found: dict[str, Summary]) -> str:
    """What was registered and no claim asks: each that has a verdict, the number of the rest."""
    lines = ['| study | outcome | contrast | effect | verdict |', '|---|---|---|---|---|']
    undecided = 0
    for study, summary in found.items():
        tested = [t for t in STUDIES if t.study == study]
        asked = {(t.task, *pair) for t in tested for pair in t.claims.values()}
        contrasts = [c for task in summary.tasks for c in (*task.contrasts, *task.secondary)]
        for c in (*contrasts, *summary.across):
            task = '' if c in summary.across else c.task
            if not c.registered or (task, c.name, c.outcome) in asked:
                continue
            if c.verdict.startswith((*OPEN_VERDICTS, NOT_YET)):
                undecided += 1
                continue
            where = f'{study}, {c.task}' if c.task else study
            cells = where, c.outcome or 'the metric', c.name, _effect(c, ''), c.verdict
            lines.append('| ' + ' | '.join(cell.strip() for cell in cells) + ' |')
    return '\n'.join([*lines, '', f'{undecided} more are undecided, not tested or not yet asked.'])


def owed(found: dict[str, Summary]) -> str:
    """What the metric of each study owes to the attention, over all its arms, in a sentence."""
    lines = []
    for study, task in ((study, task) for study, of in found.items() for task in of.tasks):
        parts = []
        for to, words in (('start', 'to the attention'), ('mean', 'to its looking at the image')):
            values = [v for arm in task.attended for v in arm.owed(to).values()]
            if values:
                mean, most = statistics.mean(values), max(values, key=abs)
                parts.append(
                    f'{mean:+.{task.digits - 1}f} {words} (the largest change of a trial '
                    f'{most:+.{task.digits - 1}f})'
                )
        name = f'{study}, {task.name}' if task.name else study
        if parts:
            lines.append(f'- {name}: {task.metric_label} owes {", ".join(parts)}.')
    return '\n'.join(lines)


def took(found: dict[str, Summary]) -> str:
    """How long the trials of each study trained, in a sentence."""
    parts = []
    for study, summary in found.items():
        hours = sum(trial.training_time_s for trial in summary.records) / 3600
        parts.append(f'{study} {hours:.1f} ({len(summary.records)} trials)')
    return (
        'Hours of training on one core, validations and pretraining not counted: '
        f'{", ".join(parts)}.'
    )


def page() -> str:
    """The whole page."""
    found = studied()
    lines = [
        '| claim | tested by | dose | effect | verdict | cannot speak of |',
        '|---|---|---|---|---|---|',
    ]
    lines += ['| ' + ' | '.join((r.said, r.study, *r.cells)) + ' |' for r in rows(found)]
    beside = '\n\n## What else was registered\n\n' + others(found)
    knocked = '\n\n## What the trained networks owe to their attention\n\n' + owed(found) + '\n'
    missing = [OPEN, '| on | claims | what would ask them |', '|---|---|---|']
    listed: list[Asked] = [tested.claims for tested in STUDIES if tested.study in found]
    for tested in (t for t in STUDIES if t.study not in found):
        claims = 'the same' if tested.claims in listed else '; '.join(tested.claims)
        listed.append(tested.claims)
        config = f'`configs/ablations/{tested.study}.py`: no trials yet'
        missing.append(f'| {tested.on} | {claims} | {config} |')
    missing += [f'| {on} | all | {how} |' for on, how in OPEN_CLAIMS.items()]
    spent = f'\n## What it took\n\n{took(found)}\n\n'
    return HEAD + '\n'.join(lines) + beside + knocked + spent + '\n'.join(missing) + '\n' + END


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    write_text(RESULTS / 'claims.md', page())
    print(RESULTS / 'claims.md')


if __name__ == '__main__':
    main()
