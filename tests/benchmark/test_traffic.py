"""What a tail moves, held by the committed table: no change may raise a figure unnoticed."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmse.benchmark import tails
from mmse.benchmark.traffic import SHAPE, Case, count
from mmse.models import ChannelAttention
from mmse.models.kernel_support import why_no_kernels

ROOT = Path(__file__).parents[2]
COMMITTED = json.loads((ROOT / 'results/benchmark/traffic.json').read_text())
FULL = 'mmse sepp_v2_residual'


def test_counts_what_is_known_of_plain_operations() -> None:
    """A plain norm reads its map twice and writes one; the addition reads two, the relu one."""

    def tail(y: Tensor, shortcut: Tensor, norm: nn.Module) -> Tensor:
        return norm(y).add_(shortcut).relu_()

    found = count(tail, nn.BatchNorm2d(SHAPE[1]), None, Case('inference'))
    assert (found.maps, found.launches, found.kept) == (2 + 3 + 2, 3, 0)
    # Statistics besides; backward: relu 3, norm 2 and 3; the two operations of the norm are one
    # each, as is the addition's gradient, which is none.
    found = count(tail, nn.BatchNorm2d(SHAPE[1]), None, Case('training'))
    assert (found.maps, found.launches) == (7 + 1 + 3 + 5, 6)
    assert found.kept == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize('label', list(tails.CASES))
def test_committed_figures(label: str) -> None:
    """Those of torch's versions differ in launches; maps do not."""
    case = tails.CASES[label]
    same = COMMITTED['torch'].split('+')[0] == torch.__version__.split('+')[0]
    for preset in ('se', 'se_max', 'se_avgmax', 'sepp_v2_residual'):
        for kernels in (False, True):
            name = f'mmse {preset}' + (', kernels' if kernels else '')
            if kernels and (case.device == 'cpu' or why_no_kernels('cuda')):
                continue
            attention = ChannelAttention(SHAPE[1], preset=preset)
            tail = tails.fused(attention, kernels)
            found = count(tail, nn.BatchNorm2d(SHAPE[1]), attention, case)
            want = COMMITTED['tails'][name][label]
            assert found.maps <= want['maps'] and found.kept <= want['kept'], name
            assert not same or found.launches <= want['launches'], name


def test_bars() -> None:
    """What the table promises of full attention, by torch's operations and by kernels."""
    eager, kernels = COMMITTED['tails'][FULL], COMMITTED['tails'][f'{FULL}, kernels']
    assert eager['training, fp32']['maps'] <= 21
    assert eager['training, AMP, channels_last']['maps'] <= 28
    for label, found in eager.items():
        assert found['launches'] <= 80 or 'CPU' in label
        assert found['maps'] <= 10 or 'inference' not in label
    for label, found in kernels.items():
        assert found['maps'] <= (5 if 'inference' in label else 12)
        assert found['launches'] <= 40


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {name: tails.CASES[name] for name in ('inference, fp32', 'inference on a CPU')}
    monkeypatch.setattr(tails, 'CASES', cases)
    table, files = tails.write_traffic(tmp_path)
    assert [file.name for file in files] == ['traffic.json', 'traffic.md']
    assert table in files[1].read_text()
    rows = {line.split(' | ')[0].strip('| '): line for line in table.splitlines()[2:]}
    assert rows['plain ResNet'].endswith('| 7 / 3 / 0.00 | 7 / 3 / 0.00 |')
    assert set(json.loads(files[0].read_text())['tails']) == set(rows)
