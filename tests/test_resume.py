"""A run that was killed and resumed equals one that was not, to the bit."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_utils import in_process, read_scalars, train_alone, train_args
from mmengine.fileio.backends import LocalBackend

from mmse.weights import read_checkpoint

pytest_plugins = ('engine_utils',)

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
@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_killed_and_resumed_equals_undisturbed(
    kind: str, tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    config, whole, parts = tiny_configs[kind], tmp_path / 'whole', tmp_path / 'parts'
    assert in_process(train_alone, train_args(config, whole)) == 0
    killed = train_args(config, parts, cfg_options=kill_after(KILL_AFTER))
    assert in_process(train_alone, killed) == -signal.SIGKILL
    assert not (parts / 'iter_6.pth').exists()
    assert in_process(train_alone, train_args(config, parts, resume='auto')) == 0

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
