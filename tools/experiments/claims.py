"""Write ``results/claims.md``: what the method says, and what the trials of each study say to it.

``python tools/experiments/claims.py`` reads ``results/ablations/`` and nothing else.
"""

import argparse
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from mmse.ablation.plan import read_plan
from mmse.ablation.summary import Summary, TaskSummary, summarise
from mmse.ablation.verdicts import ContrastSummary
from mmse.utils.files import write_text

RESULTS = Path('results')
HEAD = """# Claims

What the method says, one row a claim and a study. Written by `python tools/experiments/claims.py`
from the trial files.

- **Dose**: how far the attention of the arms moved from its start, and the part of it that depends
  on the image; the least of the arms that are compared
  ([what it is](../docs/ablations.md#what-the-attention-did)).
- **Effect**: the mean of the paired differences with its interval at the last look that was
  reached.
- **Verdict**: by the rules that stood in the plan before the first trial.

"""
# What is said, the study and its contrast, and what the study cannot speak of.
SMALL = 'larger networks and images, longer and pretrained training'
CLAIMS: tuple[tuple[str, str, str, str], ...] = tuple(
    (f'{said} ({data})', f'{study}_{task}', contrast, SMALL)
    for task, data in (('det', 'detection'), ('seg', 'segmentation'))
    for said, study, contrast in (
        ('avg+max squeeze helps', 'squeeze_x_residual', 'avg+max squeeze'),
        ('Residual gating helps', 'squeeze_x_residual', 'residual gating'),
        ('The two help each other', 'squeeze_x_residual', 'interaction'),
        ('Attention with both helps a plain ResNet', 'squeeze_x_residual', 'both against plain'),
        ('The same from random gates', 'default_start', 'both against plain'),
        ('Softmax fusion is better than a sum', 'checklist', 'softmax for sum'),
        ('A temperature of 2 is better than 1', 'checklist', 'T = 2'),
        ('A hardsigmoid gate costs nothing in the metric', 'checklist', 'hardsigmoid'),
        ('SiLU is better than ReLU (read with the sign turned)', 'checklist', 'relu for silu'),
        ('C/8 is better than C/16', 'checklist', 'C/8 for C/16'),
        (
            'At least 4 hidden channels are better (read with the sign turned)',
            'checklist',
            'min_hidden 1 for 4',
        ),
        ('Residual gating steadies training', 'steadiness', 'residual gating at x 16'),
    )
)
# Claims that are not about the metric of the task.
OUTCOMES = {'Residual gating steadies training': 'diverged'}
OPEN_CLAIMS = {
    'the same on BCCD': '`configs/ablations/squeeze_x_residual_bccd.py`: no trials yet',
    'the same on CamVid': '`configs/ablations/squeeze_x_residual_camvid.py`: no trials yet',
    'the same from pretrained weights': 'a plain network per seed, fine-tuned: no config yet',
    '"in dense tasks, not in classification"': 'the same contrast in a classifier: no config yet',
    'the same at full scale': '`..._coco.py`, `..._ade20k.py` ([cost](../docs/scale.md))',
    'in mixed precision': 'needs a GPU',
}
END = """
That hardsigmoid is cheaper than sigmoid on CPUs is a matter of measuring time, not of seeds:
[production](../docs/production.md) has it.

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


def rows() -> list[Row]:
    """Every claim, with what the trials say; the columns of the table from dose to verdict."""
    found: dict[str, Summary] = {}
    table = []
    for said, study, name, silent in CLAIMS:
        folder = RESULTS / 'ablations' / study
        if study not in found and (folder / 'plan.json').is_file():
            found[study] = summarise(folder)
        if study not in found:
            config = f'`configs/ablations/{study}.py` was not run'
            table.append(Row(said, config, ('-', '-', 'no trials yet', '')))
            continue
        (task,) = found[study].tasks
        outcome = OUTCOMES.get(said.partition(' (')[0], '')
        contrast = next(
            c for c in (*task.contrasts, *task.secondary) if (c.outcome, c.name) == (outcome, name)
        )
        link = f'[{study}](ablations/{study}/report.md), {name}{outcome and ": "}{outcome}'
        effect = f'{_effect(task, contrast)}; {len(contrast.estimate.differences)} seeds'
        table.append(Row(said, link, (_dose(task, study, name), effect, contrast.verdict, silent)))
    return table


def _effect(task: TaskSummary, contrast: ContrastSummary) -> str:
    low, high = contrast.estimate.t_interval
    if not math.isfinite(low):
        return '-'
    digits = max(1, contrast.digits - 1)
    values = (f'{value:+.{digits}f}' for value in (contrast.estimate.mean, low, high))
    mean, low_text, high_text = values
    unit = contrast.outcome or task.metric_label
    return f'{mean} ({low_text} to {high_text}, {contrast.coverage}) {unit}'


def _dose(task: TaskSummary, study: str, contrast: str) -> str:
    arms = {arm.name: arm for arm in task.arms}
    plan = read_plan(RESULTS / 'ablations' / study)
    weights = next(c.weights for c in plan.contrasts if c.name == contrast)
    doses = [
        [d for arm in weights if (d := arms[arm].median_dose(key)) is not None]
        for key in ('moved', 'over_images')
    ]
    if not all(doses):
        return '-'
    return f'{min(doses[0]):.2f}, {min(doses[1]):.3f} by the image'


def owed() -> str:
    """What the metric of each study owes to the attention, over all its arms, in a sentence."""
    lines = []
    for study in dict.fromkeys(study for _, study, _, _ in CLAIMS):
        folder = RESULTS / 'ablations' / study
        if not (folder / 'plan.json').is_file():
            continue
        (task,) = summarise(folder).tasks
        parts = []
        for to, words in (('start', 'to the attention'), ('mean', 'to its looking at the image')):
            values = [v for arm in task.attended for v in arm.owed(to).values()]
            if values:
                mean, most = statistics.mean(values), max(values, key=abs)
                parts.append(
                    f'{mean:+.{task.digits - 1}f} {words} (at most {most:+.{task.digits - 1}f})'
                )
        lines.append(f'- {study}: {task.metric_label} owes {", ".join(parts)}.')
    return '\n'.join(lines)


def page() -> str:
    """The whole page."""
    lines = [
        '| claim | tested by | dose | effect | verdict | cannot speak of |',
        '|---|---|---|---|---|---|',
    ]
    lines += ['| ' + ' | '.join((row.said, row.study, *row.cells)) + ' |' for row in rows()]
    knocked = '\n\n## What the trained networks owe to their attention\n\n' + owed() + '\n'
    missing = ['## Not asked yet', '', '| claim | what would ask it |', '|---|---|']
    missing += [f'| {claim} | {config} |' for claim, config in OPEN_CLAIMS.items()]
    return HEAD + '\n'.join(lines) + knocked + '\n' + '\n'.join(missing) + '\n' + END


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    write_text(RESULTS / 'claims.md', page())
    print(RESULTS / 'claims.md')


if __name__ == '__main__':
    main()
