"""The report from trial files alone: its numbers and its words."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from support.simulated_study import DATA, SEEDS, simulate_study

from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.records import FailedTrial
from mmse.ablation.report import status_table, write_report
from mmse.ablation.summary import summarise
from mmse.utils.errors import UserError


@pytest.fixture
def simulated(tmp_path):
    return simulate_study(tmp_path)


def contrast(summary, name):
    return next(c for c in summary.tasks[0].contrasts if c.name == name)


def test_known_effects_are_found_and_no_others(simulated):
    summary = summarise(simulated)
    residual, squeeze = (contrast(summary, n) for n in ('residual gating', 'avg+max squeeze'))
    assert residual.estimate.mean == pytest.approx(2, abs=0.3)
    assert residual.verdict == 'helps'
    # All eight differences are positive: 2 / 2^8, times two contrasts.
    assert residual.estimate.p == pytest.approx(2 / 2**8)
    assert residual.p == pytest.approx(4 / 2**8)
    assert squeeze.estimate.t_interval[0] < 0 < squeeze.estimate.t_interval[1]
    assert squeeze.verdict == 'no effect larger than 1'
    arms = {arm.name: arm for arm in summary.tasks[0].arms}
    assert arms['squeeze=both, residual=on'].against_first.mean == pytest.approx(3, abs=0.3)
    assert arms['squeeze=avg, residual=on'].time_ratio == pytest.approx(1.1)
    assert 'the smallest two-sided p that they can give is 0.0078' in summary.notes[0]


def test_differences_are_those_of_the_files(simulated):
    files = [json.loads(f.read_text()) for f in (simulated / 'trials').iterdir()]
    metric = {(f['arm'], f['seed']): f['metrics']['mIoU'] for f in files}
    found = contrast(summarise(simulated), 'residual gating').estimate
    for seed in range(SEEDS):
        by_hand = sum(
            metric[f'squeeze={s}, residual=on', seed] - metric[f'squeeze={s}, residual=off', seed]
            for s in ('avg', 'both')
        )
        assert found.differences[seed] == pytest.approx(by_hand / 2)


def test_too_few_seeds_are_said_to_be_too_few(simulated):
    for seed in range(3, SEEDS):
        for file in simulated.glob(f'trials/*-{seed}.json'):
            file.unlink()
    summary = summarise(simulated)
    assert summary.notes[0] == (
        '3 seeds have all arms: the smallest two-sided p that they can give is 0.25, 0.5 after '
        "Holm's correction for 2 contrasts. No effect of any size can reach 0.05: that takes "
        '7 seeds'
    )
    assert contrast(summary, 'residual gating').verdict == 'not yet: 3 of 8 seeds'


def test_markdown_has_every_figure_and_verdict(simulated):
    write_report(simulated)
    text = (simulated / 'report.md').read_text()
    assert re.search(r'\| residual gating \| residual=on - residual=off.* \| helps \|', text)
    pictures = re.findall(r'!\[[^\]]+\]\(([^)]+)\)', text)
    assert [p.split('/')[1] for p in pictures] == [
        'contrasts.png',
        'dose.png',
        'seeds.png',
        'curves.png',
        'cost.png',
        'scalars.png',
    ]
    for picture in pictures:
        pixels = np.asarray(Image.open(simulated / picture).convert('L'))
        assert 0.002 < (pixels < 128).mean() < 0.5
    assert not list(simulated.rglob('*.part*'))


def test_a_report_is_made_from_the_files_alone_and_always_the_same(simulated, tmp_path):
    write_report(simulated)
    moved = tmp_path / 'elsewhere'
    shutil.copytree(simulated, moved)
    (tmp_path / 'question.py').unlink()
    first = {f.name: f.read_bytes() for f in moved.glob('report.*')}
    write_report(moved)
    assert first == {f.name: f.read_bytes() for f in moved.glob('report.*')}


def test_nothing_to_report_is_said(tmp_path, simulated):
    with pytest.raises(UserError, match=r'has no plan\.json: run the ablation first'):
        write_report(tmp_path / 'nowhere')
    shutil.rmtree(simulated / 'trials')
    with pytest.raises(UserError, match='no finished trial to report'):
        write_report(simulated)
    assert not list(simulated.glob('report.*'))


def test_a_broken_trial_file_is_named(simulated):
    (simulated / 'trials/half.json').write_text('{"arm": ')
    with pytest.raises(UserError, match=r'half\.json is not a trial file'):
        summarise(simulated)


@pytest.mark.parametrize('change', [{'results_version': None}, {'code': 'abc'}, {'status': 'odd'}])
def test_a_trial_file_of_another_form_is_named(simulated, change):
    """Such as those that were written before trials had a results version."""
    file = next(simulated.glob('trials/plain-0.json'))
    kept = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    with pytest.raises(UserError, match=r'plain-0\.json is not a trial file of this version'):
        summarise(simulated)


def test_provenance_is_said(simulated):
    said = summarise(simulated).provenance
    assert said == ('Results version 1, data dddddddddddd, commit 0123456789; torch 2, device CPU')


def test_failed_trials_are_listed(simulated):
    FailedTrial(
        id='failed',
        task='',
        arm='plain',
        seed=9,
        recipe='recipe of plain',
        results_version=RESULTS_VERSION,
        data=DATA,
        environment={},
        reason='exit code 1',
        last_lines=['no memory'],
    ).write(simulated / 'trials/failed.json')
    write_report(simulated)
    assert 'plain, seed 9: exit code 1; no memory' in (simulated / 'report.md').read_text()
    assert 'failed: failed: exit code 1' in status_table(simulated)
