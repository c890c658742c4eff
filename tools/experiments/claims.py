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
# What is said, by its study and the contrast that tests it.
BOTH = {
    'avg+max squeeze helps': 'avg+max squeeze',
    'Residual gating helps': 'residual gating',
    'The two help each other': 'interaction',
    'Attention with both helps a plain ResNet': 'both against plain',
}
PARTS = {
    'Softmax fusion is better than a sum': 'softmax for sum',
    'A temperature of 2 is better than 1': 'T = 2',
    'A hardsigmoid gate costs nothing in the metric': 'hardsigmoid',
    'SiLU is better than ReLU (read with the sign turned)': 'relu for silu',
    'C/8 is better than C/16': 'C/8 for C/16',
    'At least 4 hidden channels are better (read with the sign turned)': 'min_hidden 1 for 4',
}
STEADY = {'Residual gating steadies training': 'residual gating at x 16'}
# Studies in the order of their worth: name, what they are made on, their claims, and what they
# cannot speak of.
SMALL = 'larger networks and images, longer and pretrained training'
SCRATCH = 'larger networks and images, longer training'
STUDIES: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ('squeeze_x_residual_det', 'detection', BOTH, SMALL),
    ('squeeze_x_residual_seg', 'segmentation', BOTH, SMALL),
    ('default_start_det', 'detection, random gates', BOTH, SMALL),
    ('default_start_seg', 'segmentation, random gates', BOTH, SMALL),
    ('squeeze_x_residual_bccd', 'BCCD', BOTH, SMALL),
    ('squeeze_x_residual_camvid', 'CamVid', BOTH, SMALL),
    ('pretrained_bccd', 'BCCD, pretrained', BOTH, SCRATCH),
    ('pretrained_camvid', 'CamVid, pretrained', BOTH, SCRATCH),
    ('checklist_det', 'detection', PARTS, SMALL),
    ('checklist_seg', 'segmentation', PARTS, SMALL),
    ('steadiness_det', 'detection', STEADY, SMALL),
    ('steadiness_seg', 'segmentation', STEADY, SMALL),
)
# Claims that are not about the metric of the task.
OUTCOMES = {'Residual gating steadies training': 'diverged'}
OPEN_CLAIMS = {
    '"in dense tasks, not in classification"': (
        '`configs/ablations/squeeze_by_task.py`: no trials yet'
    ),
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


def studied() -> dict[str, Summary]:
    """The studies that have trials."""
    folders = {name: RESULTS / 'ablations' / name for name, *_ in STUDIES}
    return {n: summarise(f) for n, f in folders.items() if (f / 'plan.json').is_file()}


def rows(found: dict[str, Summary]) -> list[Row]:
    """Every claim of these studies; the columns of the table from dose to verdict."""
    table = []
    for study, on, claims, silent in STUDIES:
        if study not in found:
            continue
        (task,) = found[study].tasks
        for said, name in claims.items():
            outcome = OUTCOMES.get(said, '')
            contrast = next(
                c
                for c in (*task.contrasts, *task.secondary)
                if (c.outcome, c.name) == (outcome, name)
            )
            link = f'[{study}](ablations/{study}/report.md), {name}{outcome and ": "}{outcome}'
            effect = f'{_effect(task, contrast)}; {len(contrast.estimate.differences)} seeds'
            cells = (_dose(task, study, name), effect, contrast.verdict, silent)
            table.append(Row(f'{said} ({on})', link, cells))
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


def owed(found: dict[str, Summary]) -> str:
    """What the metric of each study owes to the attention, over all its arms, in a sentence."""
    lines = []
    for study, summary in found.items():
        (task,) = summary.tasks
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
    found = studied()
    lines = [
        '| claim | tested by | dose | effect | verdict | cannot speak of |',
        '|---|---|---|---|---|---|',
    ]
    lines += ['| ' + ' | '.join((r.said, r.study, *r.cells)) + ' |' for r in rows(found)]
    knocked = '\n\n## What the trained networks owe to their attention\n\n' + owed(found) + '\n'
    missing = ['## Not asked yet', '', '| claim | what would ask it |', '|---|---|']
    missing += [
        f'| {"; ".join(claims)} ({on}) | `configs/ablations/{study}.py`: no trials yet |'
        for study, on, claims, _ in STUDIES
        if study not in found
    ]
    missing += [f'| {claim} | {config} |' for claim, config in OPEN_CLAIMS.items()]
    return HEAD + '\n'.join(lines) + knocked + '\n' + '\n'.join(missing) + '\n' + END


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    write_text(RESULTS / 'claims.md', page())
    print(RESULTS / 'claims.md')


if __name__ == '__main__':
    main()
