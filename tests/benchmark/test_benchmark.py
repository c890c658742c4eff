"""What the benchmark measures, and what tools/benchmark.py writes."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from mmse.benchmark.compare import run
from mmse.benchmark.measure import interleaved, ratio, saved_bytes
from mmse.benchmark.networks import PLAIN, build_detectors, detector_batch
from mmse.benchmark.records import Settings
from mmse.models import SEResNet
from mmse.utils.errors import UserError

ROOT = Path(__file__).parents[2]
CPU = torch.device('cpu')


def test_ratio_pairs_the_rounds() -> None:
    """A round in which the machine is busy is slow for both."""
    found = ratio([2.0, 20.0, 3.0, 4.0, 8.0], [1.0, 10.0, 1.0, 1.0, 1.0])
    assert (found.low, found.median, found.high) == (2, 3, 4)


def test_rounds_are_interleaved_and_rotated() -> None:
    calls: list[str] = []
    functions = {name: (lambda name=name: calls.append(name)) for name in 'abc'}
    seconds = interleaved(functions, 4, CPU)
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys('abc', 4)
    assert all(time > 0 for times in seconds.values() for time in times)
    # Two rounds to warm up, which begin one and two places earlier.
    assert ''.join(calls) == 'bcacababcbcacababc'


def test_saved_bytes() -> None:
    """A linear layer keeps its input, a relu its output; the weight does not count."""
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 7))
    x = torch.randn(2, 3)
    assert saved_bytes(net, lambda: net(x)) == 4 * (2 * 3 + 2 * 5)
    # The graph dies with the count: a hook that returned a node's own output would keep it alive.
    outputs = []

    def forward() -> torch.Tensor:
        out = net(x).relu()
        outputs.append(weakref.ref(out))
        return out

    saved_bytes(net, forward)
    assert outputs[0]() is None
    # One storage counts once, whoever keeps it.
    assert saved_bytes(nn.ReLU(), lambda: x.requires_grad_().mul(x).relu()) == 4 * (2 * 3 + 2 * 3)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': (32, 32), 'batch': 1}, r'--batch 1 with --size 32: the last stage'),
        ({'size': (16, 320)}, '--size 16x320: allowed: 32'),
        ({'dtype': 'float16'}, 'the CPU has no float16 training'),
        ({'rounds': 1}, '--rounds at least 2'),
    ],
)
def test_what_cannot_be_honoured(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**settings).check()


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / 'tools/benchmark.py', '--rounds', '2', *arguments],
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_backbones(tmp_path: Path) -> None:
    only = ('sepp_v2_residual', 'timm', 'mmpretrain')
    done = call('--depth', '50', '--size', '64x96', '--batch', '1', '--only', *only, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stem = tmp_path / 'results/benchmark/backbone_r50_1x64x96_cpu_float32'
    assert {p.suffix for p in stem.parent.iterdir()} == {'.json', '.md', '.png'}
    result = json.loads(stem.with_suffix('.json').read_text())
    rows = {row['name']: row for row in result['rows']}
    assert set(rows) == {
        'mmdet.ResNet',
        'timm resnet',
        'timm seresnet',
        'timm seresnet, max pool',
        'mmpretrain.SEResNet',
        'mmse sepp_v2_residual',
        'mmse sepp_v2_residual, not fused',
        "mmse sepp_v2_residual, recompute='norms'",
        "mmse sepp_v2_residual, recompute='expand'",
    }
    assert rows['mmdet.ResNet']['training'] == {'median': 1, 'low': 1, 'high': 1}
    assert rows['mmdet.ResNet']['saved'] == rows['timm resnet']['saved'] == 1
    assert rows['mmdet.ResNet']['macs'] == rows['timm resnet']['macs']
    full = rows['mmse sepp_v2_residual']
    assert full['macs'] == rows['mmse sepp_v2_residual, not fused']['macs']
    assert 1 < rows['timm seresnet']['parameters'] / rows['timm resnet']['parameters'] < 1.2
    others = [row for name, row in rows.items() if 'seres' in name.lower() or 'not' in name]
    assert len(others) == 4
    assert all(full['saved'] < 1.05 < 1.2 < row['saved'] < 1.35 for row in others)
    text = stem.with_suffix('.md').read_text()
    assert f'{full["saved"]:.3f}' in text and 'torch 2.' in text
    assert text.split('\n')[4] in done.stdout


@pytest.mark.parametrize('norm_eval', [False, True])
def test_statistics_of_the_norms(norm_eval: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = SEResNet(18, base_channels=8, attention='se', norm_eval=False)
    monkeypatch.setattr('mmse.benchmark.compare.build_backbones', lambda *_: ({PLAIN: net}, []))
    monkeypatch.setattr('mmse.benchmark.compare.quiet', lambda: None)
    run(Settings(size=(64, 64), rounds=2, modes=['training'], norm_eval=norm_eval))
    changed = [m.running_mean.any().item() for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(changed) == 20
    assert set(changed) == {not norm_eval}


def test_detectors_start_as_the_same_function() -> None:
    """Or their heads would have different proposals to work on."""
    nets = build_detectors(18)
    images = detector_batch(1, (64, 96), CPU)['inputs']
    with torch.no_grad():
        want, *others = [net.eval().extract_feat(images) for net in nets.values()]
    assert len(others) == 2
    for got in others:
        for a, b in zip(got, want, strict=True):
            assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.slow
def test_detector(tmp_path: Path) -> None:
    done = call('--detector', '--depth', '18', '--size', '64', '--batch', '1', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob('results/benchmark/*.json')
    rows = json.loads(file.read_text())['rows']
    assert [row['name'] for row in rows] == ['plain', 'se', 'full', 'full, recompute']
    assert all(row['training']['median'] > 0 and row['inference_ms'] > 0 for row in rows)


def test_unknown_network(tmp_path: Path) -> None:
    done = call('--only', 'vgg', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith('error: --only vgg: there are mmdet.ResNet, timm resnet')
