"""The growth plot: byte counts without contents, and the cells that are timed."""

import json
from pathlib import Path

import pytest
import torch

from mmse.benchmark import growth
from mmse.benchmark.measure import saved_bytes
from mmse.benchmark.networks import FULL, PLAIN, build_backbones
from mmse.benchmark.records import Settings
from mmse.utils.errors import UserError

AXES = {'size': ((64, 64), (64, 96)), 'batch': (1, 2), 'depth': (18, 50)}


def test_bytes_are_those_of_real_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, 'AXES', AXES)
    cells = growth.memory_grid()
    assert len(cells) == 8
    for cell in cells[1], cells[6]:
        nets, _ = build_backbones([FULL], cell['depth'])
        x = torch.randn(cell['batch'], 3, *cell['size'])
        kept = {}
        for name in (PLAIN, FULL):
            nets[name].train()
            kept[name] = saved_bytes(nets[name], lambda net=nets[name], x=x: net(x))
        assert kept[FULL] == cell['saved_bytes']
        assert kept[FULL] / kept[PLAIN] == cell['saved']


@pytest.mark.slow
def test_each_cell_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, 'AXES', AXES)
    monkeypatch.setattr(growth, 'CENTRE', {'size': (64, 96), 'batch': 1, 'depth': 18})
    files = growth.write_growth(Settings(rounds=2), tmp_path)
    assert [file.name for file in files] == ['growth.json', 'growth.png']
    assert sorted(tmp_path.iterdir()) == sorted(files)
    cells = json.loads(files[0].read_text())['time']
    where = [(tuple(c['size']), c['batch'], c['depth']) for c in cells]
    assert where == [((64, 64), 1, 18), ((64, 96), 1, 18), ((64, 96), 2, 18), ((64, 96), 1, 50)]
    assert all(c['training']['median'] > 0 < c['inference']['median'] for c in cells)


def test_bytes_and_times_are_of_the_same_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='leave out --norm-eval'):
        growth.write_growth(Settings(norm_eval=True), tmp_path)
    assert not list(tmp_path.iterdir())
