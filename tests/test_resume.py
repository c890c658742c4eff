"""A run that was killed and resumed equals one that was not, to the bit."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_utils import IN_PROCESS, args_for_train, in_process, read_scalars, train_alone
from mmengine.fileio.backends import LocalBackend

from mmse.engine.checkpoints import latest_checkpoint
from mmse.errors import UserError
from mmse.weights import read_checkpoint

pytest_plugins = ('engine_fixtures',)

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
    assert in_process(train_alone, args_for_train(config, whole, cfg_options=options)) == 0
    killed = args_for_train(config, parts, cfg_options={**options, **kill_after(KILL_AFTER)})
    assert in_process(train_alone, killed) == -signal.SIGKILL
    assert not (parts / 'iter_6.pth').exists()
    resumed = args_for_train(config, parts, cfg_options=options, resume='auto')
    assert in_process(train_alone, resumed) == 0

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


def die_while_saving(args: Any, name: str) -> None:
    """Train; SIGKILL arrives when half of the checkpoint ``name`` is on the disk."""

    def put(self: LocalBackend, content: bytes, path: str) -> None:
        half = len(content) // 2 if Path(path).name == name else len(content)
        Path(path).write_bytes(content[:half])
        if half < len(content):
            os.kill(os.getpid(), signal.SIGKILL)

    LocalBackend.put = put
    train_alone(args)


@pytest.mark.slow
def test_kill_while_saving_leaves_the_older_checkpoint(
    tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    config, work_dir = tiny_configs['seg'], tmp_path / 'work'
    args = args_for_train(config, work_dir)
    assert in_process(die_while_saving, args, 'iter_6.pth') == -signal.SIGKILL
    with pytest.raises(UserError, match=r'iter_6\.pth is damaged'):
        read_checkpoint(work_dir / 'iter_6.pth')
    assert read_checkpoint(work_dir / 'iter_3.pth')['meta']['iter'] == 3
    before = len(read_scalars(work_dir))
    assert in_process(train_alone, args_for_train(config, work_dir, resume='auto')) == 0
    resumed = [line['step'] for line in read_scalars(work_dir)[before:] if 'lr' in line]
    assert resumed == list(range(4, LAST + 1))
    assert read_checkpoint(work_dir / 'iter_6.pth')['meta']['iter'] == 6


def test_latest_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / 'nowhere') is None
    assert latest_checkpoint(tmp_path) is None
    for age, name in enumerate(['iter_9.pth', 'iter_3.pth', 'best_mAP_iter_3.pth']):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    # Killed while writing the very first checkpoint: MMEngine has not named one yet.
    assert latest_checkpoint(tmp_path) is None
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'iter_3.pth'))
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_3.pth')
    # The folder was moved, or the run was started from another one.
    pointer.write_text('work_dirs/elsewhere/iter_3.pth')
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_3.pth')
    # Killed while the pointer was written, which is after its checkpoint.
    pointer.write_text('')
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_9.pth')
