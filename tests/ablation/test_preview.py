"""What ``tools/ablate.py plan`` prints before anything runs."""

import logging
import re

import pytest
from mmengine.logging import MMLogger
from support.ablations import ATTENTION, write_study

from mmse.ablation import estimate
from mmse.ablation.plan import resolve
from mmse.ablation.show import show_plan
from mmse.ablation.study import read_study
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)


def test_measuring_prints_nothing_and_leaves_the_log_as_it_was(tmp_path, tiny_configs, capsys):
    """A detector's data set prints; MMEngine logs every weight."""
    file = write_study(tmp_path, tiny_configs['det'], metric='coco/bbox_mAP')
    logger = MMLogger.get_current_instance()
    logger.setLevel('INFO')
    cfg = resolve(read_study(file))[0].cfg
    capsys.readouterr()
    assert estimate.trial_seconds(cfg) > 0
    assert capsys.readouterr().out == ''
    cfg.train_dataloader.dataset.type = 'Nothing'
    with pytest.raises(UserError, match='Nothing'):
        estimate.trial_seconds(cfg)
    assert logger.level == logging.INFO


@pytest.mark.usefixtures('single_thread', 'fresh_logger')
def test_plan_shows_arms_trials_time_and_power(tmp_path, tiny_configs, capsys):
    show_plan(read_study(write_study(tmp_path, tiny_configs['seg'])), tmp_path / 'results')
    out = capsys.readouterr().out
    assert re.search(r'^  plain  no attention$', out, re.M)
    assert re.search(r'^  se     avg, C/16 \(min 1\), relu, sigmoid', out, re.M)
    assert '4 trials: 2 arms x 1 tasks x 2 seeds; 0 have ended' in out
    assert '2/2^2 = 0.5; with 1 contrasts, Holm-corrected, this can never reach 0.05' in out
    assert 'that takes 6 seeds' in out
    assert re.search(r'Time of a trial: about \d+ s, measured', out)
    assert not (tmp_path / 'results').exists()


def test_plan_does_without_the_data(tmp_path, capsys):
    base = 'configs/coco/faster_rcnn_se_r50_fpn_1x_coco.py'
    plain = {'plain': {ATTENTION: None}, 'se': {ATTENTION: 'se'}}
    file = write_study(tmp_path, base, metric='coco/bbox_mAP', arms=plain, seeds=8)
    show_plan(read_study(file), tmp_path / 'results')
    out = capsys.readouterr().out
    assert 'not measured: train_dataloader: there is no data folder data/coco' in out
    assert '= 0.0078, 0.0078 corrected for 1 contrasts' in out


def test_time_of_a_trial_is_steps_and_validations(tiny_configs, tmp_path, monkeypatch):
    study = read_study(write_study(tmp_path, tiny_configs['seg']))
    medians = iter([3.0, 0.5])
    monkeypatch.setattr(estimate, '_median_time', lambda *_: next(medians))
    # 8 iterations, and after every fourth a validation of 4 images in batches of 2.
    assert estimate.trial_seconds(resolve(study)[0].cfg) == 8 * 3.0 + 2 * 2 * 0.5
