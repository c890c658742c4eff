"""A run that was killed and resumed equals one that was not, to the bit."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio.backends import LocalBackend
from support.ablations import trials, write_study
from support.engine import IN_PROCESS, args_for_train, read_scalars
from support.processes import in_process, with_output

from mmse.ablation.engines import Ended
from mmse.ablation.failure import LOG
from mmse.ablation.folders import Folders
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.trial import run_trial
from mmse.ablation.variants import resolve
from mmse.checkpoints import read_checkpoint
from mmse.checkpoints.latest import latest_checkpoint
from mmse.engine.run import choose_start, train
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)

KILL_AFTER = 5  # checkpoints are written after 3, 6 and 8 iterations, validation is after 4 and 8
LAST = 8


def kill_after(iterations: int) -> dict[str, Any]:
    hooks = [{'type': 'mmse.IterationSeedHook'}, {'type': 'KillHook', 'after': iterations}]
    return {'custom_hooks': hooks}


def assert_same_tensors(left: Any, right: Any, place: str = '') -> None:
    if isinstance(left, dict):
        assert list(left) == list(right), place
        for key in left:
            assert_same_tensors(left[key], right[key], f'{place}.{key}')
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right), place


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'num_workers'), [('det', 1), ('seg', 1), ('seg', 0)])
def test_killed_and_resumed_equals_undisturbed(
    kind: str, num_workers: int, tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    """Sampled proposals, dropout, random flips, one-cycle schedule; on the CPU, to the bit."""
    config, whole, parts = tiny_configs[kind], tmp_path / 'whole', tmp_path / 'parts'
    options = {} if num_workers else IN_PROCESS
    assert in_process(train, args_for_train(config, whole, cfg_options=options)) == 0
    killed = args_for_train(config, parts, cfg_options={**options, **kill_after(KILL_AFTER)})
    assert in_process(train, killed) == -signal.SIGKILL
    assert not (parts / 'iter_6.pth').exists()
    resumed = args_for_train(config, parts, cfg_options=options, resume='auto')
    assert in_process(train, resumed) == 0

    expected = {(line['step'], 'lr' in line): line for line in read_scalars(whole)}
    got = read_scalars(parts)
    steps = [line['step'] for line in got if 'lr' in line]
    assert steps == [*range(1, KILL_AFTER + 1), *range(4, LAST + 1)]
    assert [line['step'] for line in got if 'lr' not in line] == [4, 4, 8]
    for line in got:
        assert line == expected[line['step'], 'lr' in line]
    final = [read_checkpoint(folder / f'iter_{LAST}.pth') for folder in (whole, parts)]
    for key in ('state_dict', 'optimizer'):
        assert_same_tensors(final[0][key], final[1][key], key)
    # The training moved: equal weights that never changed would prove nothing.
    first = read_checkpoint(whole / 'iter_6.pth')['state_dict']
    moved = [k for k, v in first.items() if not torch.equal(v, final[0]['state_dict'][k])]
    assert len(moved) > 0.9 * len(first)


def die_while_saving(name: str, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function; SIGKILL arrives when half of the checkpoint ``name`` is on the disk."""

    def put(self: LocalBackend, content: bytes, path: str) -> None:
        half = len(content) // 2 if Path(path).name == name else len(content)
        Path(path).write_bytes(content[:half])
        if half < len(content):
            os.kill(os.getpid(), signal.SIGKILL)

    LocalBackend.put = put
    function(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('keep', 'resumed'), [(-1, range(4, LAST + 1)), (1, range(1, LAST + 1))], ids=['all', 'one']
)
def test_kill_while_saving_leaves_the_older_checkpoint(
    keep: int, resumed: range, tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    """Where only one is kept, MMEngine has removed the older one, and the run begins anew."""
    config, work_dir = tiny_configs['seg'], tmp_path / 'work'
    options = {**IN_PROCESS, 'default_hooks.checkpoint.max_keep_ckpts': keep}
    args = args_for_train(config, work_dir, cfg_options=options)
    assert in_process(die_while_saving, 'iter_6.pth', train, args) == -signal.SIGKILL
    with pytest.raises(UserError, match=r'iter_6\.pth (is|.* it is) damaged'):
        read_checkpoint(work_dir / 'iter_6.pth')
    assert (work_dir / 'iter_3.pth').exists() == (keep != 1)
    before = len(read_scalars(work_dir))
    args = args_for_train(config, work_dir, cfg_options=options, resume='auto')
    assert in_process(train, args) == 0
    assert [s['step'] for s in read_scalars(work_dir)[before:] if 'lr' in s] == list(resumed)
    assert read_checkpoint(work_dir / 'iter_8.pth')['meta']['iter'] == LAST


@pytest.mark.slow
def test_a_trial_killed_while_saving_goes_on(tiny_configs: dict[str, Path], tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, tiny_configs['seg'], seeds=1))
    folders = Folders(tmp_path / 'results', tmp_path / 'work')
    dying = die_while_saving, 'iter_6.pth'

    def engine(working: Sequence[Path], *call: Any) -> Ended:
        for folder in working:
            log = folder / LOG
            yield folder, in_process(with_output, log, log, *call, run_trial, folder)

    failed = run(study, resolve(study), folders, lambda working: engine(working, *dying))
    assert {trial['reason'] for trial in trials(tmp_path).values()} == {'ended by signal 9'}
    assert run(study, resolve(study), folders, engine, retry_failed=True) == []
    records = trials(tmp_path)
    assert list(records) == sorted(failed) and len(failed) == 2
    for record in records.values():
        (line,) = (line for line in record['log'] if 'resumed' in line)
        assert line.endswith('iter: 3')


def test_latest_checkpoint(tmp_path: Path, logged_warnings: list[str]) -> None:
    assert latest_checkpoint(tmp_path / 'nowhere') is None
    assert latest_checkpoint(tmp_path) is None
    newest, middle, oldest = (tmp_path / f'iter_{n}.pth' for n in (9, 6, 3))
    best = tmp_path / 'best_mAP_iter_3.pth'
    for age, file in enumerate([best, newest, middle, oldest]):
        torch.save({'state_dict': {}}, file)
        os.utime(file, (1000 - age, 1000 - age))
    # Killed while writing the very first checkpoint: MMEngine has not named one yet.
    assert latest_checkpoint(tmp_path) is None
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(oldest))
    assert latest_checkpoint(tmp_path) == str(oldest)
    # The folder was moved, or the run was started from another one.
    pointer.write_text('work_dirs/elsewhere/iter_3.pth')
    assert latest_checkpoint(tmp_path) == str(oldest)
    # Saved in another folder, or as a folder.
    elsewhere = tmp_path / 'out_dir/iter_12.pth'
    elsewhere.parent.mkdir()
    torch.save({'state_dict': {}}, elsewhere)
    (tmp_path / 'iter_15.pth').mkdir()
    for path in (elsewhere, tmp_path / 'iter_15.pth'):
        pointer.write_text(str(path))
        assert latest_checkpoint(tmp_path) == str(path)
    (tmp_path / 'iter_15.pth').rmdir()
    assert not logged_warnings
    # Killed while the pointer was written, which is after its checkpoint.
    pointer.write_text('')
    assert latest_checkpoint(tmp_path) == str(newest)
    assert 'names no checkpoint, which' in logged_warnings[-1]
    # Killed while a checkpoint was saved again in its place, or after it had been removed.
    pointer.write_text(str(newest))
    newest.write_bytes(newest.read_bytes()[:-30])
    assert latest_checkpoint(tmp_path) == str(middle)
    assert f'names {newest}, which is missing or cut off' in logged_warnings[-1]
    newest.unlink()
    assert latest_checkpoint(tmp_path) == str(middle)
    assert logged_warnings[-1].endswith(f'going on from {middle}')
    middle.unlink(), oldest.unlink()
    assert latest_checkpoint(tmp_path) is None
    assert logged_warnings[-1].endswith('there is no whole checkpoint to go on from')


@pytest.mark.parametrize('by_config', [False, True], ids=['--resume', 'resume=True'])
def test_without_a_checkpoint_to_resume_the_config_decides(by_config: bool, tmp_path: Path) -> None:
    """A preemptible cluster starts every job with --resume, the first one as well."""

    def start(load_from: str | None) -> tuple[str | None, bool]:
        cfg = Config({'work_dir': str(tmp_path), 'load_from': load_from, 'resume': by_config})
        choose_start(cfg, None if by_config else 'auto')
        return cfg.load_from, cfg.resume

    assert start(None) == (None, False)
    if not by_config:  # which resumes from load_from
        assert start('coco.pth') == ('coco.pth', False)
    newest = tmp_path / 'iter_3.pth'
    torch.save({'state_dict': {}}, newest)
    (tmp_path / 'last_checkpoint').write_text(str(newest))
    assert start(None) == (str(newest), True)
    assert start('coco.pth') == ('coco.pth' if by_config else str(newest), True)
