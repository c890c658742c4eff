"""The figures in results/README.md and docs/ are those of the committed measurements."""

import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmse.ablation.report import write_report
from mmse.ablation.summary import summarise
from mmse.models.settings import PRESETS

ROOT = Path(__file__).parents[2]
STUDIES = [ROOT / 'results/earlier' / f'squeeze_x_residual_{task}' for task in ('det', 'seg')]
TUTORIAL = ROOT / 'results/earlier/tutorial'
RESULTS = (ROOT / 'results/README.md').read_text(encoding='utf-8')


def row_of(page: str, start: str) -> list[str]:
    """The cells of the one row of a page's tables that begins with this text."""
    (row,) = [line for line in page.splitlines() if line.startswith(f'| {start}')]
    return [cell.strip() for cell in row.strip('| ').split('|')]


@pytest.mark.parametrize('study', [*STUDIES, TUTORIAL], ids=lambda study: study.name)
def test_reports_are_what_the_trial_files_give(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / 'trials', tmp_path / 'trials')
    shutil.copy(study / 'plan.json', tmp_path)
    write_report(tmp_path)
    assert (tmp_path / 'report.md').read_text() == (study / 'report.md').read_text()


@pytest.mark.parametrize(('study', 'digits'), zip(STUDIES, (3, 2), strict=True))
def test_estimates_in_results(study: Path, digits: int) -> None:
    (task,) = summarise(study).tasks
    estimates = [contrast.estimate for contrast in task.contrasts]
    shown = row_of(RESULTS, f'`configs/ablations/{study.name}.py`')[2:]
    assert shown == [
        '{:+.{d}f} ({:+.{d}f} to {:+.{d}f})'.format(e.mean, *e.t_interval, d=digits)
        for e in estimates
    ]


@pytest.mark.parametrize(
    ('start', 'name'), [('alpha of', 'alpha'), ('softmax weight of', 'weight_of_avg')]
)
def test_learned_scalars_in_results(start: str, name: str) -> None:
    ranges = []
    for study in (*STUDIES, TUTORIAL):
        trials = [json.loads(file.read_text()) for file in (study / 'trials').glob('*.json')]
        learned = [trial['scalars'].get(name, {}) for trial in trials]
        values = [v for stages in learned for blocks in stages.values() for v in blocks]
        ranges.append(f'{min(values):.2f} to {max(values):.2f}')
    assert row_of(RESULTS, start)[2:] == ranges


def test_intervals_of_studies_stand_in_results_only() -> None:
    for page in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
        found = re.search(r'[+-]\d\.\d+ \(?(to )?[+-]\d\.\d+', page.read_text(encoding='utf-8'))
        assert not found, f'{page}: {found}; say it in words and link to the report'


def measured(*names: str) -> dict[str, Any]:
    """The rows of a table that tools/benchmark.py wrote, by the network."""
    file = ROOT.joinpath('results/benchmark', *names).with_suffix('.json')
    return {row['name']: row for row in json.loads(file.read_text())['rows']}


NETWORKS = {
    'mmse, full attention': 'mmse sepp_v2_residual',
    'the same with `fused=False`': 'mmse sepp_v2_residual, not fused',
    'timm `seresnet50`': 'timm seresnet',
    'timm `seresnet50` with max pool': 'timm seresnet, max pool',
    'mmpretrain `SEResNet`': 'mmpretrain.SEResNet',
}


@pytest.mark.parametrize('network', NETWORKS)
def test_costs_in_performance(network: str) -> None:
    memory, time = (ROOT / 'docs/performance.md').read_text().split('## Time')
    saved = measured('backbone_r50_2x256x320_cpu_float32')[NETWORKS[network]]['saved']
    assert row_of(memory, f'{network} |')[1:] == [f'{saved:.3f}']
    runs = [
        [
            measured(f'run{run}', f'backbone_r50_{size}_cpu_float32_{mode}')[NETWORKS[network]][
                mode
            ]['median']
            for run in (1, 2, 3)
        ]
        for mode, size in (('training', '2x256x320'), ('inference', '1x480x640'))
    ]
    shown = [', '.join(f'{ratio:.3f}' for ratio in ratios) for ratios in runs]
    assert row_of(time, f'{network} |')[1:] == shown


def test_range_of_memory_in_performance() -> None:
    growth = json.loads((ROOT / 'results/benchmark/growth.json').read_text())['memory']
    ratios = [row['saved'] for row in growth]
    text = ' '.join((ROOT / 'docs/performance.md').read_text().split())
    assert f'between {min(ratios):.4f} and {max(ratios):.4f}' in text


def test_parity_in_production() -> None:
    parity = json.loads((ROOT / 'results/onnx_parity.json').read_text())
    rows = re.findall(
        r'^\| [^|]*`(\w+)` \| (\S+e-\d+) \| (\S+e-\d+) \|$',
        (ROOT / 'docs/production.md').read_text(),
        re.M,
    )
    assert rows == [
        (case, *(f'{max(forms[form].values()):.1e}' for form in ('as it is', 'folded')))
        for case, forms in parity.items()
    ]
    assert set(PRESETS) < set(parity)


def test_the_time_of_the_gates() -> None:
    rows = json.loads((ROOT / 'results/gate_time.json').read_text())
    for network, by_gate in rows.items():
        depth, precision = network.split()
        shown = row_of(RESULTS, f'{depth}, {precision}')[1:]
        assert shown == [
            '{median:.2f} ({low:.2f} to {high:.2f})'.format(**by_gate[name])
            for name in ('hardsigmoid', 'plain')
        ]


def trials_of(study: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The finished trials of a study by recipe, data and seed."""
    files = (ROOT / 'results/ablations' / study / 'trials').glob('*.json')
    trials = [json.loads(file.read_text()) for file in files]
    return {(t['recipe'], t['data'], t['seed']): t for t in trials if t['status'] == 'finished'}


def test_what_rounding_alone_does() -> None:
    first, again = trials_of('squeeze_x_residual_seg'), trials_of('steadiness_seg')
    pairs = [(first[key], again[key]) for key in sorted(set(first) & set(again))]
    assert all(a['environment'] == b['environment'] for a, b in pairs)
    changes = [b['metrics']['mIoU'] - a['metrics']['mIoU'] for a, b in pairs]
    for a, b in pairs:
        assert b['loss'][0][1] == pytest.approx(a['loss'][0][1], rel=1e-4)
    text = ' '.join(RESULTS.split())
    assert (
        f'the {len(pairs)} pairs of repeated trials differ by {statistics.stdev(changes):.1f} mIoU '
        f'(standard deviation; {max(map(abs, changes)):.1f} at most), and by '
        f'{statistics.mean(changes):.1f} on average'
    ) in text


def test_the_higher_learning_rates() -> None:
    (task,) = summarise(ROOT / 'results/ablations/steadiness_seg').tasks
    arms = {arm.name: arm for arm in task.arms}
    gone = {
        name: [f'{arms[f"lr=x {lr}, residual={name}"].mean:.1f}' for lr in (1, 4, 16)]
        for name in ('off', 'on')
    }
    text = ' '.join(RESULTS.split())
    assert (
        'its mean falls from {} mIoU to {} and {}, that of the residual one from '
        '{} to {} and {}.'.format(*gone['off'], *gone['on'])
    ) in text
    fast = [arms[f'lr=x 16, residual={name}'] for name in ('off', 'on')]
    shut = [arm.dose_part('closed') + arm.dose_part('open') for arm in fast]
    assert f'{100 * shut[0]:.0f} % of the multiplicative gates are saturated' in text
    assert f'{100 * shut[1]:.0f} % of the residual ones are as well' in text
    assert fast[0].dose_part('closed') > 0.5
    residual = [arms[f'lr=x {lr}, residual=on'] for lr in (4, 16)]
    alphas = [arm.learned['alpha'] for arm in residual]
    below = [f'{100 * np.mean(np.array(values) < 0):.0f} %' for values in alphas]
    assert 'in {} of the blocks at 4 times the rate and in {} at 16'.format(*below) in text
    assert '(medians {:.2f} and {:.2f})'.format(*map(np.median, alphas)) in text
    assert f'of which there are {100 * fast[1].dose_part("open"):.0f} % at 16 times' in text
    parts = [arm.dose_part('mean') for arm in residual]
    assert 'gains are {:.2f} and {:.2f} of those of the start on average'.format(*parts) in text
    owed = [np.mean(list(arm.owed('start').values())) for arm in residual]
    assert 'the metric owes the attention {:.1f} and {:.1f} mIoU'.format(*owed) in text
    assert {f'{c.p:.2f}' for c in task.contrasts} == {'0.07'}
    assert {c.verdict.partition(';')[0] for c in task.contrasts} == {'undecided with 8 seeds'}
    spikes = [c.estimate.mean for c in task.secondary if c.outcome == 'loss spikes']
    assert max(map(abs, spikes)) < 1
