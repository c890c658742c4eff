"""Studies whose arms start from a plain network that the study itself has trained."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from support.ablations import ATTENTION, ablate, trials, write_study
from support.engine import IN_PROCESS

from mmse.ablation.failure import LOG, failure
from mmse.ablation.folders import Folders, freeze, head_of
from mmse.ablation.identity import weight_files
from mmse.ablation.initial_weights import RECORD
from mmse.ablation.plan import read_plan
from mmse.ablation.pretraining import freeze_pretrainings, in_order
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.trial import NotYetError, run_trial
from mmse.ablation.variants import resolve, trials_of
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)

METRICS = {'det': 'coco/bbox_mAP', 'seg': 'mIoU'}


def pretraining(base, **overrides):
    return {'base': str(base), 'metric': 'mIoU', 'overrides': {**IN_PROCESS, **overrides}}


def checkpoint(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, map_location='cpu', weights_only=False)['state_dict']


def backbone(weights):
    return {k: v for k, v in weights.items() if k.startswith('backbone.')}


@pytest.mark.slow
def test_all_arms_of_a_seed_start_from_the_network_of_their_seed(tmp_path, tiny_configs):
    first = pretraining(
        tiny_configs['seg'], **{'train_cfg.max_iters': 6, 'train_cfg.val_interval': 6}
    )
    write_study(tmp_path, tiny_configs['seg'], pretraining=first)
    code, out, err = ablate(tmp_path, 'run', '--workers', '2', '--keep-checkpoints')
    assert code == 0, out + err
    starts = {}
    for seed in (0, 1):
        (folder,) = tmp_path.glob(f'work/pretraining-seed{seed}-*')
        trained = checkpoint(folder / 'iter_6.pth')
        assert not any('attention' in key for key in trained)
        raw = json.loads((folder / 'record.json').read_text())
        assert f'{folder.name}: mIoU {raw["metrics"]["mIoU"]:.4f}' in out
        for arm in ('plain', 'se'):
            (work,) = tmp_path.glob(f'work/{arm}-seed{seed}-*')
            start = checkpoint(work / 'initial_weights.pth')
            mine = backbone(start)
            assert mine.keys() == backbone(trained).keys()
            assert all(torch.equal(mine[k], trained[k]) for k in mine)
            # The head is fresh: only the backbone is what a user of pretrained weights has.
            assert not torch.equal(
                start['decode_head.conv_seg.weight'], trained['decode_head.conv_seg.weight']
            )
            starts[arm, seed] = start
            assert trials(tmp_path)[work.name]['pretraining'] == raw['metrics']
        assert all(torch.equal(v, starts['se', seed][k]) for k, v in starts['plain', seed].items())
    assert not torch.equal(
        starts['se', 0]['backbone.layer1.0.conv1.weight'],
        starts['se', 1]['backbone.layer1.0.conv1.weight'],
    )
    planned = read_plan(tmp_path / 'results').tasks[0].pretraining
    assert planned.base == str(tiny_configs['seg'])
    assert Config.fromstring(planned.config, '.py').train_cfg.max_iters == 6

    # A trial that is lost is run again from the same network, which is not trained again.
    for file in (tmp_path / 'results/trials').glob('se-seed1-*.json'):
        before = json.loads(file.read_text())
        file.unlink()
    (folder,) = tmp_path.glob('work/pretraining-seed1-*')
    logs = (folder / 'log.txt').read_text()
    assert ablate(tmp_path, 'run')[0] == 0
    assert (folder / 'log.txt').read_text() == logs
    assert trials(tmp_path)[before['id']]['metrics'] == before['metrics']
    assert ablate(tmp_path, 'report')[0] == 0
    report = ' '.join((tmp_path / 'results/report.md').read_text().split())
    metrics = [trial['pretraining']['mIoU'] for trial in trials(tmp_path).values()]
    mean = sum(metrics) / len(metrics)
    assert f'plain network that was trained on `{planned.base}`, to mIoU {mean:.4g}' in report


@pytest.mark.slow
def test_a_pretraining_that_fails_takes_the_trials_of_its_seed_with_it_alone(
    tmp_path, tiny_configs
):
    short = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    write_study(
        tmp_path, tiny_configs['seg'], pretraining=pretraining(tiny_configs['seg'], **short)
    )
    study = read_study(tmp_path / 'question.py')
    lost = trials_of(resolve(study), study.seeds)[0].pretraining
    freeze(lost, folder := tmp_path / 'work' / lost.id, folder / RECORD, keep_checkpoints=True)
    (folder / LOG).write_text('no memory\n')
    failure(head_of(lost), folder, -9).write(folder / RECORD)
    code, out, err = ablate(tmp_path, 'run', '--workers', '2')
    assert code == 2
    assert f'{folder}: FAILED (ended by signal 9): no memory; the trials that start' in out
    assert '2 trials have failed' in err
    ended = {(t['arm'], t['seed']): t for t in trials(tmp_path).values()}
    assert {k: t['status'] for k, t in ended.items()} == {
        **{(arm, 0): 'failed' for arm in ('plain', 'se')},
        **{(arm, 1): 'finished' for arm in ('plain', 'se')},
    }
    for arm in ('plain', 'se'):
        assert ended[arm, 0]['last_lines'][-1].endswith(
            f'the pretraining {folder} has failed; its log.txt says why'
        )
    code, out, err = ablate(tmp_path, 'run', '--workers', '2', '--retry-failed')
    assert code == 0, out + err
    assert {t['status'] for t in trials(tmp_path).values()} == {'finished'}


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        (
            {
                'model.backbone.base_channels': 16,
                'model.decode_head.in_channels': 128,
                'model.auxiliary_head.in_channels': 64,
            },
            r'pretraining, .*fcn_se_r50.py: stem.* \(8, .* in the weights and \(4, .*; set ',
        ),
        (
            {'model.backbone.depth': 34},
            'pretraining, .*: the backbone has no layer1.2.conv1',
        ),
    ],
)
def test_another_network_is_refused_before_it_is_trained(tmp_path, tiny_configs, given, match):
    first = pretraining(tiny_configs['seg'], **given)
    study = read_study(write_study(tmp_path, tiny_configs['seg'], pretraining=first))

    def engine(folders):
        raise AssertionError(folders)

    folders = Folders(tmp_path / 'results', tmp_path / 'work')
    with pytest.raises(UserError, match=match):
        run(study, resolve(study), folders, engine)


def test_a_pretraining_comes_before_the_first_trial_that_needs_it(tmp_path, tiny_configs):
    first = pretraining(tiny_configs['seg'])
    study = read_study(write_study(tmp_path, tiny_configs['seg'], pretraining=first))
    waiting = {tmp_path / t.id: t for t in trials_of(resolve(study), study.seeds)}
    missing = freeze_pretrainings(waiting.values(), tmp_path, retry_failed=False)
    order = [folder.name.rpartition('-')[0] for folder in in_order(waiting, missing)]
    assert order == [
        *('pretraining-seed0', 'plain-seed0', 'se-seed0'),
        *('pretraining-seed1', 'plain-seed1', 'se-seed1'),
    ]


def test_a_trial_does_not_wait_for_a_pretraining_that_was_removed(tmp_path, tiny_configs):
    first = pretraining(tiny_configs['seg'])
    study = read_study(write_study(tmp_path, tiny_configs['seg'], pretraining=first))
    trial = trials_of(resolve(study), study.seeds)[0]
    folder = tmp_path / 'work' / trial.id
    (missing,) = freeze_pretrainings([trial], tmp_path / 'work', retry_failed=False)
    freeze(trial, folder, tmp_path / 'record.json', keep_checkpoints=False)
    with pytest.raises(NotYetError):
        run_trial(folder)
    shutil.rmtree(missing)
    with pytest.raises(UserError, match=r'the pretraining .*pretraining-seed0-.* has been removed'):
        run_trial(folder)


def test_the_pretraining_is_part_of_what_a_trial_is(tmp_path, tiny_configs):
    def ids(**changes):
        study = read_study(write_study(tmp_path, tiny_configs['seg'], **changes))
        return [trial.id for trial in trials_of(resolve(study), study.seeds)]

    same = pretraining(tiny_configs['seg'])
    longer = pretraining(tiny_configs['seg'], **{'train_cfg.max_iters': 9})
    given = [ids(), ids(pretraining=same), ids(pretraining=longer)]
    assert len({name for names in given for name in names}) == 3 * 4
    assert ids(pretraining={**same, 'overrides': {**IN_PROCESS, ATTENTION: 'se'}}) == given[1]


def test_other_weights_under_the_same_name_are_other_trials(tmp_path, tiny_configs):
    weights = tmp_path / 'weights.pth'

    def ids(content, named):
        weights.write_bytes(content)
        file = write_study(tmp_path, tiny_configs['seg'], overrides={**IN_PROCESS, **named})
        study = read_study(file)
        return {trial.id for trial in trials_of(resolve(study), study.seeds)}

    init_cfg = {'type': 'Pretrained', 'checkpoint': str(weights)}
    for named in ({'load_from': str(weights)}, {'model.backbone.init_cfg': init_cfg}):
        assert ids(b'one', named) == ids(b'one', named)
        assert not ids(b'one', named) & ids(b'two', named)


def test_every_file_of_weights_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('teacher.pth', 'mask.pth', 'whole.pth'):
        Path(name).write_bytes(name.encode())
    model = {
        'type': 'Distiller',
        'teacher_ckpt': 'teacher.pth',
        'backbone': {'type': 'ResNet', 'pretrained': 'torchvision://resnet50'},
        'heads': [{'init_cfg': [{'type': 'Pretrained', 'checkpoint': str(tmp_path / 'mask.pth')}]}],
    }
    found = weight_files(Config({'model': model, 'load_from': 'whole.pth'}))
    assert found == {
        'load_from': sha256(b'whole.pth').hexdigest(),
        'model.teacher_ckpt': sha256(b'teacher.pth').hexdigest(),
        'model.heads.0.init_cfg.0.checkpoint': sha256(b'mask.pth').hexdigest(),
    }


def test_a_pretraining_of_another_codebase(tmp_path, tiny_configs):
    """What it sets while it is read, the default scope above all, does not reach the arms."""
    first = {**pretraining(tiny_configs['det']), 'metric': 'coco/bbox_mAP'}
    alone = resolve(read_study(write_study(tmp_path, tiny_configs['seg'])))
    file = write_study(tmp_path, tiny_configs['seg'], pretraining=first)
    variants = resolve(read_study(file))
    assert DefaultScope.get_current_instance().scope_name == 'mmseg'
    assert [v.cfg.to_dict() for v in variants] == [v.cfg.to_dict() for v in alone]


def test_mistakes_are_named(tmp_path, tiny_configs):
    def refused(match, given, **changes):
        file = write_study(tmp_path, tiny_configs['seg'], pretraining=given, **changes)
        with pytest.raises(UserError, match=match):
            resolve(read_study(file))

    good = pretraining(tiny_configs['seg'])
    refused('pretraining: .*seg.* given; allowed: a dict', 'seg.pth')
    refused('pretraining.metric is missing', {'base': good['base']})
    refused('pretraining: unknown key iterations', {**good, 'iterations': 9})
    refused('does not give mAP', {**good, 'metric': 'mAP'})
    refused(
        'pretraining.overrides.*the config has no train_cfg.max_iter',
        {**good, 'overrides': {'train_cfg.max_iter': 9}},
    )
    both = {**IN_PROCESS, 'load_from': 'weights.pth'}
    refused("load_from='weights.pth' beside the pretraining", good, overrides=both)
