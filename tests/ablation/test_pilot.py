"""The pilot before a study: what it measures, and what it does not keep."""

import json
import re

import pytest
from support.ablations import ATTENTION, ablate, write_study

from mmse.ablation.pilot import SEED, arms_of, read_pilot
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)

ARMS = {'plain': {ATTENTION: None}, 'se': {ATTENTION: 'se'}, 'max': {ATTENTION: 'se_max'}}


def test_which_arms_are_piloted(tmp_path, tiny_configs):
    study = read_study(write_study(tmp_path, tiny_configs['seg'], arms=ARMS))
    plain, attended = arms_of(study, resolve(study), '')
    assert (plain.arm.name, attended.arm.name) == ('plain', 'se')
    study = read_study(write_study(tmp_path, tiny_configs['seg'], arms=ARMS, pilot='max'))
    assert arms_of(study, resolve(study), '')[1].arm.name == 'max'
    with pytest.raises(UserError, match="pilot: 'maximum' given; allowed: plain, se, max"):
        read_study(write_study(tmp_path, tiny_configs['seg'], arms=ARMS, pilot='maximum'))
    two = {'se': ARMS['se'], 'max': ARMS['max']}
    contrasts = {'se': {'of': 'se', 'against': 'max'}}
    file = write_study(tmp_path, tiny_configs['seg'], arms=two, contrasts=contrasts)
    study = read_study(file)
    with pytest.raises(UserError, match='a pilot needs an arm without attention'):
        arms_of(study, resolve(study), '')


@pytest.mark.slow
def test_a_pilot_keeps_the_plain_metric_and_the_dose_alone(tmp_path, tiny_configs):
    file = write_study(tmp_path, tiny_configs['seg'])
    work = str(tmp_path / 'work')
    code, out, err = ablate(tmp_path, 'plan', '--pilot', '--work-dir', work)
    assert code == 0, out + err
    assert re.search(r'pilot: mIoU of the plain arm [\d.]+ at 4, [\d.]+ at 8 iterations', out)
    assert re.search(r'pilot: dose of se [\d.]+, (at least|LESS THAN) the 0\.05 that', out)
    assert '0 of 4 trials have ended' in out
    assert not (tmp_path / 'results/trials').exists()
    assert not list((tmp_path / 'work').iterdir())
    raw = json.loads((tmp_path / 'results/pilot.json').read_text())['']
    assert set(raw) == {'plain', 'curve', 'arm', 'attention', 'dose_curve', 'dose', 'owes'}
    amount = 'more' if raw['owes'] else 'NO MORE'
    assert f'put back to its start, that attention changes mIoU by {amount} than a third' in out
    assert [step for step, _ in raw['curve']] == [step for step, *_ in raw['dose_curve']] == [4, 8]
    assert 'mIoU' not in json.dumps(raw['dose'])
    study = read_study(file)
    assert SEED not in study.seeds
    assert read_pilot(tmp_path / 'results', study, resolve(study), '') is not None
    # A pilot of another size says nothing about this one.
    other = read_study(write_study(tmp_path, tiny_configs['seg'], overrides={ATTENTION: 'se'}))
    assert read_pilot(tmp_path / 'results', other, resolve(other), '') is None
