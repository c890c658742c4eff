"""What ``tools/ablate.py plan`` prints before anything runs."""

import logging
import re
import tempfile
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from support.ablations import ATTENTION, write_study
from support.engine import IN_PROCESS

from mmse.ablation import timing
from mmse.ablation.preview import print_preview
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)


def test_measuring_prints_nothing_and_leaves_the_log_as_it_was(tmp_path, tiny_configs, capsys):
    """A detector's data set prints; MMEngine logs every weight."""
    file = write_study(tmp_path, tiny_configs['det'], metric='coco/bbox_mAP')
    logger = MMLogger.get_current_instance()
    logger.setLevel('INFO')
    cfg = resolve(read_study(file))[0].cfg
    capsys.readouterr()
    assert timing.trial_seconds(cfg) > 0
    assert capsys.readouterr().out == ''
    cfg.train_dataloader.dataset.type = 'Nothing'
    with pytest.raises(UserError, match='Nothing'):
        timing.trial_seconds(cfg)
    assert logger.level == logging.INFO


def test_the_time_in_mixed_precision_is_not_known_without_a_gpu(
    tmp_path, tiny_configs, monkeypatch
):
    for name in ('cuda', 'npu', 'mlu', 'musa'):
        monkeypatch.setattr(
            f'mmengine.optim.optimizer.amp_optimizer_wrapper.is_{name}_available', lambda: False
        )
    cfg = resolve(read_study(write_study(tmp_path, tiny_configs['seg'])))[0].cfg
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    with pytest.raises(UserError, match=r'optim_wrapper: .*AmpOptimizerWrapper.* is only'):
        timing.trial_seconds(cfg)


@pytest.mark.usefixtures('single_thread', 'fresh_logger')
def test_plan_shows_arms_trials_time_and_power(tmp_path, tiny_configs, capsys):
    print_preview(read_study(write_study(tmp_path, tiny_configs['seg'])), tmp_path / 'results')
    out = capsys.readouterr().out
    assert re.search(r'^  plain  no attention$', out, re.M)
    assert re.search(r'^  se     avg, C/16 \(min 1\), relu, sigmoid', out, re.M)
    assert '4 trials: 2 arms x 1 tasks x 2 seeds; results version 1' in out
    assert '2 seeds have all arms: the smallest two-sided p that they can give is 0.5' in out
    assert 'No effect of any size can reach 0.05: that takes 6 seeds' in out
    assert re.search(
        r'0 of 4 trials have ended, on data [0-9a-f]{12}; a trial takes about \d+', out
    )
    assert not (tmp_path / 'results').exists()


def test_plan_does_without_the_data(tmp_path, capsys):
    base = 'configs/coco/faster_rcnn_se_r50_fpn_1x_coco.py'
    plain = {'plain': {ATTENTION: None}, 'se': {ATTENTION: 'se'}}
    file = write_study(tmp_path, base, metric='coco/bbox_mAP', arms=plain, seeds=8)
    print_preview(read_study(file), tmp_path / 'results')
    out = capsys.readouterr().out
    assert 'is not known: train_dataloader: there is no data folder data/coco' in out
    assert "is 0.0078, 0.0078 after Holm's correction for 1 contrasts" in out


def test_time_of_a_trial_is_steps_and_validations(tiny_configs, tmp_path, monkeypatch):
    study = read_study(write_study(tmp_path, tiny_configs['seg']))
    medians = iter([3.0, 0.5])
    monkeypatch.setattr(timing, '_median_time', lambda *_: next(medians))
    # 8 iterations, and after every fourth a validation of 4 images in batches of 2.
    # And three passes more, of which two are knock-outs.
    assert timing.trial_seconds(resolve(study)[0].cfg) == 8 * 3.0 + (2 + 3) * 2 * 0.5


@pytest.mark.usefixtures('single_thread', 'fresh_logger')
def test_plan_writes_nothing(tmp_path, tiny_configs, monkeypatch, capsys):
    """Not even the built-in data, which the measured steps need and the first run generates."""
    missing = {f'{split}_dataloader.dataset.data_root': 'data/new' for split in ('train', 'val')}
    file = write_study(tmp_path, tiny_configs['seg'], overrides={**IN_PROCESS, **missing})
    (tmp_path / 'cwd').mkdir()
    monkeypatch.chdir(tmp_path / 'cwd')
    monkeypatch.setenv('TMPDIR', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', None)
    before = set(tmp_path.rglob('*'))
    print_preview(read_study(file), Path('results'))
    assert re.search(r'a trial takes about \d+ s', capsys.readouterr().out)
    assert set(tmp_path.rglob('*')) == before
