"""Trials in processes of their own: finished once, resumed, failed alone, and never twice."""

import json
import os
import shutil
import signal
from dataclasses import fields, replace
from importlib.metadata import version

import pytest
import torch
from filelock import FileLock
from support.ablations import (
    ARMS,
    ATTENTION,
    ablate,
    fork_ablate,
    outcome,
    start_ablate,
    trials,
    wait_until,
    write_study,
)
from support.engine import IN_PROCESS
from support.processes import in_process, trial_main, with_output

from mmse.ablation import engines
from mmse.ablation.engines import run_locally
from mmse.ablation.failure import DIVERGED, LOG, failure
from mmse.ablation.folders import Folders, freeze
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.plan import read_plan
from mmse.ablation.provenance import environment, source_commit
from mmse.ablation.records import FailedTrial, TrialHead, comparable, read_trial, read_trials
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.trial import BUSY, known_end, read_assignment
from mmse.ablation.variants import resolve, trials_of
from mmse.utils.files import read_json, write_json

pytest_plugins = ('support.engine_fixtures',)

pytestmark = pytest.mark.slow

KEYS_OF_ALPHA = [f'layer{i}.{j}.attention.alpha' for i in range(1, 5) for j in range(2)]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, tiny_configs):
    """A study that ran through, and what its run printed."""
    folder = tmp_path_factory.mktemp('undisturbed')
    write_study(folder, tiny_configs['seg'])
    code, out, err = ablate(folder, 'run', '--workers', '2')
    assert code == 0, out + err
    return folder, out


def test_every_trial_leaves_a_whole_record_and_no_checkpoint(undisturbed):
    folder, out = undisturbed
    records = trials(folder)
    assert len(records) == 4
    for record in records.values():
        assert record['status'] == 'finished'
        curve = record['curves']['mIoU']
        assert record['metrics']['mIoU'] == curve[-1][1]
        assert [step for step, _ in curve] == [4, 8]
        assert [step for step, _ in record['loss']] == list(range(1, 9))
        assert record['iterations'] == 8
        assert (record['spikes'], record['non_finite']) == (0, 0)
        assert record['training_time_s'] > record['step_time_s'] > 0
        assert record['peak_memory_bytes'] > 2**27
        assert record['environment']['torch'] == version('torch')
        assert record['results_version'] == RESULTS_VERSION
        assert (record['commit'] is None) == (source_commit() is None)
        assert any('Iter(train)' in line for line in record['log'])
    parameters = {r['arm']: r['parameters'] for r in records.values()}
    # se: two 1x1 layers with biases in each of the two blocks of 8, 16, 32 and 64 channels
    hidden = {c: max(1, c // 16) for c in (8, 16, 32, 64)}
    extra = sum(2 * (2 * c * h + c + h) for c, h in hidden.items())
    assert parameters['se'] - parameters['plain'] == extra
    assert not list((folder / 'work').rglob('*.pth'))
    assert '[4/4]' in out
    assert 'left' in out


def test_every_trial_records_what_its_attention_did(undisturbed):
    folder, _ = undisturbed
    for record in trials(folder).values():
        if record['arm'] == 'plain':
            assert (record['dose'], record['dose_curve'], record['knock_out']) == ({}, [], {})
            continue
        assert list(record['dose']) == [f'layer{i}.{j}' for i in range(1, 5) for j in range(2)]
        doses = [row['moved'] for row in record['dose'].values()]
        assert 0 < min(doses) < max(doses) < 0.5  # from the identity, in eight small steps
        assert [step for step, _, _ in record['dose_curve']] == [4, 8]
        (before,) = record['earlier']
        assert (before['iteration'], record['next_validation']) == (4, 12)
        earlier = [row['moved'] for row in before['dose'].values()]
        assert (sum(dose**2 for dose in earlier) / 8) ** 0.5 == pytest.approx(
            record['dose_curve'][0][1]
        )
        overall = (sum(dose**2 for dose in doses) / 8) ** 0.5
        assert record['dose_curve'][-1][1] == pytest.approx(overall)
        assert set(record['knock_out']) == {'start', 'mean'}
        assert all(set(m) == set(record['metrics']) for m in record['knock_out'].values())
        # Only the training's own validations count as such.
        assert [step for step, _ in record['curves']['mIoU']] == [4, 8]


def test_with_averaged_weights_all_that_is_said_is_of_them(tmp_path, tiny_configs):
    """MMEngine's hook puts them in place for the validation only, and saves both."""
    gating = {'squeeze': 'avg', 'residual': True, 'learnable_alpha': True}
    hooks = {'custom_hooks': [{'type': 'EMAHook', 'momentum': 0.5}]}
    write_study(
        tmp_path,
        tiny_configs['seg'],
        arms={**ARMS, 'se': {ATTENTION: gating}},
        overrides={**IN_PROCESS, **hooks},
        seeds=1,
    )
    code, out, err = ablate(tmp_path, 'run', '--workers', '2', '--keep-checkpoints')
    assert code == 0, out + err
    (record,) = (r for r in trials(tmp_path).values() if r['arm'] == 'se')
    saved = torch.load(tmp_path / 'work' / record['id'] / 'iter_8.pth', weights_only=False)
    averaged, raw = (
        {key: float(saved[part][f'{prefix}backbone.{key}']) for key in KEYS_OF_ALPHA}
        for part, prefix in (('state_dict', ''), ('ema_state_dict', 'module.'))
    )
    assert averaged != raw
    assert set(record['earlier'][0]['scalars']) == set(record['dose'])
    stages = [value for blocks in record['scalars']['alpha'].values() for value in blocks]
    assert stages == pytest.approx(list(averaged.values()))


def test_arms_of_a_seed_start_with_the_same_loss(undisturbed):
    folder, _ = undisturbed
    first = {(r['arm'], r['seed']): r['loss'][0][1] for r in trials(folder).values()}
    for seed in (0, 1):
        assert first['se', seed] == pytest.approx(first['plain', seed], rel=1e-4)
    assert first['se', 0] != pytest.approx(first['se', 1], rel=1e-4)


def test_a_second_run_does_nothing(undisturbed):
    folder, _ = undisturbed
    before = {p: p.stat().st_mtime_ns for p in (folder / 'results/trials').iterdir()}
    code, out, _ = ablate(folder, 'run')
    assert code == 0
    assert '4 trials, 4 finished before' in out
    assert before == {p: p.stat().st_mtime_ns for p in (folder / 'results/trials').iterdir()}


def test_status_shows_the_means(undisturbed):
    folder, _ = undisturbed
    _, out, _ = ablate(folder, 'status')
    values = [r['metrics']['mIoU'] for r in trials(folder).values() if r['arm'] == 'se']
    assert f'se       2 seeds  {sum(values) / 2:.4f}' in out
    assert 'that takes 6 seeds' in out


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_table(
    undisturbed, tmp_path, tiny_configs
):
    write_study(tmp_path, tiny_configs['seg'])
    process = start_ablate(tmp_path, 'run', '--workers', '2')
    # A checkpoint is written every third iteration, and named when it is whole.
    wait_until(lambda: list(tmp_path.glob('work/*/last_checkpoint')) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(trials(tmp_path)) < 4
    folders = [log.parent for log in tmp_path.glob('work/*/log.txt')]
    wait_until(lambda: all(map(free, folders)))  # the trials' processes end with the runner
    process = start_ablate(tmp_path, 'run', '--workers', '2')
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert any('resumed' in line for r in trials(tmp_path).values() for line in r['log'])
    assert outcome(tmp_path) == outcome(undisturbed[0])


def test_killed_before_the_last_validation_it_only_validates(tmp_path, tiny_configs):
    write_study(tmp_path, tiny_configs['seg'], seeds=1)
    assert ablate(tmp_path, 'run', '--workers', '2', '--keep-checkpoints')[0] == 0
    before = outcome(tmp_path)
    record = next(tmp_path.glob('results/trials/se-*.json'))
    folder = tmp_path / 'work' / record.stem
    assert (folder / 'iter_8.pth').is_file()
    record.unlink()
    validations = json.loads((folder / 'validations.json').read_text())
    del validations['8']
    (folder / 'validations.json').write_text(json.dumps(validations))
    (folder / 'log.txt').write_text('')
    assert ablate(tmp_path, 'run', '--workers', '2')[0] == 0  # with as many threads
    assert 'Iter(train)' not in (folder / 'log.txt').read_text()
    assert outcome(tmp_path) == before
    assert not (folder / 'iter_8.pth').exists()


def test_killed_between_a_checkpoint_and_its_validation_it_makes_up_for_it(tmp_path, tiny_configs):
    every_fourth = {'default_hooks.checkpoint': {'type': 'CheckpointHook', 'interval': 4}}
    write_study(tmp_path, tiny_configs['seg'], seeds=1, overrides={**IN_PROCESS, **every_fourth})
    assert ablate(tmp_path, 'run', '--workers', '2', '--keep-checkpoints')[0] == 0
    before = outcome(tmp_path)
    record = next(tmp_path.glob('results/trials/se-*.json'))
    curves = read_json(record)['curves']
    folder = tmp_path / 'work' / record.stem
    for file in (record, folder / 'iter_8.pth', folder / 'validations.json'):
        file.unlink()
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_4.pth'))
    assert ablate(tmp_path, 'run', '--workers', '2')[0] == 0
    assert [step for step, _ in curves['mIoU']] == [4, 8]
    assert read_json(record)['curves'] == curves
    assert outcome(tmp_path) == before


def free(folder):
    lock = FileLock(folder / 'lock')
    try:
        with lock.acquire(timeout=0):
            return True
    except TimeoutError:
        return False


def test_ctrl_c_stops_the_trials_and_says_how_to_go_on(tmp_path, tiny_configs):
    write_study(tmp_path, tiny_configs['seg'], seeds=1)
    process = start_ablate(tmp_path, 'run')
    wait_until(lambda: list(tmp_path.glob('work/*/log.txt')))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == 'stopped; the same command goes on'
    assert not trials(tmp_path)
    assert all(free(folder) for folder in (tmp_path / 'work').iterdir())


def test_an_arm_that_crashes_is_recorded_and_the_rest_finishes(tmp_path, tiny_configs):
    # The model is built and refused by no check; its first step fails.
    broken = {'broken': {'model.decode_head.in_index': 2, ATTENTION: None}}
    write_study(tmp_path, tiny_configs['seg'], arms={**broken, **ARMS}, seeds=1)
    code, out, err = ablate(tmp_path, 'run', '--workers', '2')
    assert code == 2
    assert '1 trials have failed' in err
    status = {r['arm']: r['status'] for r in trials(tmp_path).values()}
    assert status == {'broken': 'failed', 'plain': 'finished', 'se': 'finished'}
    failed = next(r for r in trials(tmp_path).values() if r['arm'] == 'broken')
    assert failed['reason'] == 'exit code 1'
    assert 'channels' in failed['last_lines'][-1]
    assert 'FAILED' in out
    code, out, _ = ablate(tmp_path, 'run')
    assert code == 2
    assert '[' not in out  # nothing was tried again
    # Nor by a run that had it in its list when it failed.
    folder = tmp_path / 'work' / failed['id']
    logs = (folder / LOG).read_text()
    assert known_end(folder) == 1
    log, threads = folder / LOG, {'OMP_NUM_THREADS': '1'}
    assert in_process(with_output, log, log, trial_main, folder, threads) == 0
    assert (folder / LOG).read_text() == logs
    code, out, _ = ablate(tmp_path, 'run', '--retry-failed')
    assert code == 2
    assert out.count('FAILED') == 1
    assert logs in (again := (folder / LOG).read_text())
    assert len(again) > len(logs)


@pytest.mark.parametrize(('lr', 'diverges'), [(1e30, True), (0.01, False)])
def test_a_process_leaves_its_failure_itself(tmp_path, tiny_configs, lr, diverges):
    """And no failure in the place of a result, such as one of clearing up."""
    short = {'train_cfg.max_iters': 2, 'optim_wrapper.optimizer.lr': lr}
    study = read_study(
        write_study(tmp_path, tiny_configs['seg'], overrides={**IN_PROCESS, **short}, seeds=1)
    )
    trial = trials_of(resolve(study), study.seeds)[0]
    record = tmp_path / 'record.json'
    freeze(trial, folder := tmp_path / 'trial', record, keep_checkpoints=False)
    if not diverges:
        (folder / 'stuck.pth').mkdir()  # which cannot be removed like a file
    log = folder / LOG
    code = in_process(with_output, log, log, trial_main, folder, {'OMP_NUM_THREADS': '1'})
    left = read_trial(record)
    assert code == (DIVERGED if diverges else 1), log.read_text()
    assert left.status == ('failed' if diverges else 'finished')
    assert left.environment == environment()
    if diverges:
        assert left.diverged
        assert left.last_lines[-1].startswith('error: the loss is not finite at iteration')
    assert known_end(folder) == (DIVERGED if diverges else 0)


def test_a_trial_that_is_killed_failed_where_it_ran(undisturbed, tmp_path):
    ended = next((undisturbed[0] / 'work').iterdir())
    head = read_assignment(ended).head
    assert read_json(ended / 'environment.json') == environment()
    (tmp_path / LOG).write_text('a\nb\n')
    assert failure(head, tmp_path, -9).environment == {}  # it ended before it could say
    write_json(tmp_path / 'environment.json', {'device': 'another'})
    left = failure(head, tmp_path, -9)
    assert left.environment == {'device': 'another'}
    assert (left.id, left.reason, left.diverged) == (head.id, 'ended by signal 9', False)
    assert left.last_lines == ['a', 'b']
    assert failure(head, tmp_path, 3).diverged


def test_a_trial_that_another_process_has_is_not_run_twice(tmp_path, tiny_configs):
    write_study(tmp_path, tiny_configs['seg'], seeds=1)
    first = fork_ablate(tmp_path, 'run')
    wait_until(lambda: list(tmp_path.glob('work/*/log.txt')))
    second = fork_ablate(tmp_path, 'run')
    ends = [first(), second()]
    assert [end.returncode for end in ends] == [0, 0], ends
    assert len(trials(tmp_path)) == 2
    # Every trial was trained once: its log has one first iteration.
    for log in tmp_path.glob('work/*/log.txt'):
        assert log.read_text().count('Iter(train) [1/8]') == 1


def test_a_trial_that_another_process_has_is_waited_for(
    tmp_path, tiny_configs, capsys, monkeypatch
):
    monkeypatch.setattr('mmse.ablation.engines.BUSY_WAIT_S', 0)
    study = read_study(write_study(tmp_path, tiny_configs['seg'], seeds=1))
    trial = trials_of(variants := resolve(study), study.seeds)[0]
    folder = tmp_path / 'work' / trial.id
    folder.mkdir(parents=True)
    lock = FileLock(folder / 'lock')
    lock.acquire()
    ended = []

    def engine(folders):
        for each in folders:
            log = each / LOG
            code = in_process(with_output, log, log, trial_main, each, {'OMP_NUM_THREADS': '1'})
            ended.append((each == folder, code))
            if code == BUSY:
                lock.release()
            yield each, code

    assert run(study, variants, Folders(tmp_path / 'results', tmp_path / 'work'), engine) == []
    assert ended == [(True, BUSY), (False, 0), (True, 0)]
    assert '1 trials wait for another process' in capsys.readouterr().out
    assert {r['status'] for r in trials(tmp_path).values()} == {'finished'}


def test_no_process_starts_for_what_has_ended_or_runs_elsewhere(undisturbed, tmp_path, monkeypatch):
    ended = sorted((undisturbed[0] / 'work').iterdir())
    shutil.copytree(ended[0], folder := tmp_path / 'unfinished')
    config = (folder / 'config.py').read_text()
    (folder / 'config.py').write_text(config.replace(str(undisturbed[0]), str(tmp_path)))
    assert known_end(folder) is None
    monkeypatch.setattr(engines, 'start_trial', lambda *_: pytest.fail('a process is started'))
    with FileLock(folder / 'lock'):
        found = dict(run_locally([*ended, folder], workers=2))
    assert found == {**dict.fromkeys(ended, 0), folder: BUSY}


def test_a_free_place_goes_to_the_first_trial_that_can_start(tmp_path, monkeypatch):
    needs = {'a0': 'p0', 'a1': 'p1', 'b1': 'p1', 'c': 'elsewhere'}
    order = [tmp_path / name for name in ('p0', 'a0', 'p1', 'a1', 'b1', 'c', 'done')]
    started, ended = [], {'done'}

    class Process:
        """Ends when it is asked for the second time, p1 for the fifth."""

        returncode = 0

        def __init__(self, name):
            self.name, self.left = name, 5 if name == 'p1' else 2

        def poll(self):
            self.left -= 1
            if self.left > 0:
                return None
            ended.add(self.name)
            return 0

        def wait(self):
            raise AssertionError('what has ended is not waited for')

        kill = wait

    def start(folder, environment):
        started.append(folder.name)
        return Process(folder.name)

    def known(folder):
        if folder.name in ended:
            return 0
        return BUSY if folder.name in needs and needs[folder.name] not in ended else None

    monkeypatch.setattr(engines, 'start_trial', start)
    monkeypatch.setattr(engines, 'known_end', known)
    found = [(folder.name, code) for folder, code in run_locally(order, workers=2)]
    assert started == ['p0', 'p1', 'a0', 'a1', 'b1']  # a0 while p1 is still running
    assert found.pop() == ('c', BUSY)
    assert dict(found) == dict.fromkeys(('p0', 'a0', 'p1', 'a1', 'b1', 'done'), 0)
    assert len(found) == 6


def test_what_belongs_to_another_question_or_machine_is_left_out_aloud(undisturbed):
    results = undisturbed[0] / 'results'
    plan, (first, *others) = read_plan(results), read_trials(results)
    assert comparable(plan, [first, *others]) == ([first, *others], [])
    for change, reason in {
        'recipe': ('another', 'another config, arm or seed than the plan has now'),
        'seed': (9, 'another config, arm or seed than the plan has now'),
        'results_version': (2, 'results version 2 instead of 1'),
        'data': ('another', 'their data have changed since'),
        'environment': ({'torch': '1'}, 'environment {"torch": "1"}'),
    }.items():
        changed = replace(first, **{change: reason[0]})
        assert comparable(plan, [*others, changed]) == (
            others,
            [f'1 trials left out: {reason[1]} ({first.id})'],
        )
    # One that failed elsewhere says nothing of the arm here.
    head = {f.name: getattr(first, f.name) for f in fields(TrialHead)}
    broken = FailedTrial(**head, environment=first.environment, reason='', last_lines=[])
    assert comparable(plan, [*others, broken]) == ([*others, broken], [])
    elsewhere = replace(broken, environment={'device': 'another'})
    assert comparable(plan, [*others, elsewhere])[0] == others
    unknown = replace(broken, environment={})
    assert comparable(plan, [*others, unknown]) == ([unknown, *others], [])
    # The commit is told, and decides nothing.
    assert comparable(plan, [replace(first, commit='another')])[1] == []


def test_a_contrast_that_comes_late_is_exploratory(undisturbed, tmp_path, tiny_configs):
    folder, _ = undisturbed
    late = {'se': {'of': 'se', 'against': 'plain'}, 'late': {'of': 'plain', 'against': 'se'}}
    file = write_study(tmp_path, tiny_configs['seg'], contrasts=late)
    file.rename(folder / 'question.py')
    _, out, _ = ablate(folder, 'run')
    assert 'contrast late was added or changed after trials had ended' in out
    contrasts = {c.name: c.registered for c in read_plan(folder / 'results').contrasts}
    assert contrasts == {'se': True, 'late': False}


def test_workers_share_the_threads(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    assert engines._share(0, 3) == {'OMP_NUM_THREADS': '2'}
    assert engines._share(1, 20) == {'OMP_NUM_THREADS': '1'}
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert engines._share(3, 4)['CUDA_VISIBLE_DEVICES'] == '6'
