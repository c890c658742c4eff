"""The script for machines with a GPU, run on a CPU with small images."""

import sys
from dataclasses import replace
from pathlib import Path

import gpu
import pytest


@pytest.mark.slow
def test_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, 'SIZES', ((64, 64),))
    monkeypatch.setattr(gpu, 'BATCHES', {(64, 64): 2})
    monkeypatch.setattr(gpu, 'tested', lambda: '3 passed')
    measured = []
    run = gpu.run

    def counted(settings: gpu.Settings) -> object:
        measured.append(gpu.name_of(settings))
        if len(measured) > 3:
            monkeypatch.setattr(gpu.time, 'monotonic', lambda: 1e9)
        return run(replace(settings, rounds=2))

    monkeypatch.setattr(gpu, 'run', counted)
    monkeypatch.setattr(gpu, 'ONLY', ['mmse sepp_v2_residual'])
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cpu'])
    gpu.main()
    text = capsys.readouterr().out
    assert 'Tests: 3 passed' in text and len(measured) == 4
    assert '--dtype float16: the CPU has no float16 training' in text
    assert 'Not measured for want of time: ' in text and 'detector_r50' in text
    # What was measured is not measured again.
    first, measured[:] = measured[0], []
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cpu', '--minutes', '-1'])
    gpu.main()
    assert first.endswith('float32') and measured == []
    report = Path('results/gpu/report.md').read_text()
    assert report.strip() in capsys.readouterr().out
    assert report.count('| mmdet.ResNet |') == 3
