"""``python -m mmse env``: what a bug report needs to know."""

import subprocess
import sys
from importlib.metadata import version

from mmse import __main__


def test_report_names_versions_stack_imports_and_devices():
    run = subprocess.run([sys.executable, '-m', 'mmse', 'env'], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    for name in ('mmse', 'torch'):
        assert f'{name}: {version(name)}' in lines
    assert any(line in lines for line in ('stack: OpenMMLab', 'stack: OneDL'))
    for name in ('mmcv.ops', 'mmdet.apis', 'mmseg.apis', 'mmse.models'):
        assert f'import {name}: ok' in lines
    assert any(line.startswith('GPUs: ') for line in lines)


def test_what_does_not_import_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(__main__, 'IMPORTS', ('no_such_module',))
    text = __main__.report()
    assert "import no_such_module: ModuleNotFoundError: No module named 'no_such_module'" in text


def test_two_stacks_in_one_environment_are_seen(monkeypatch):
    monkeypatch.setattr(__main__, 'versions', lambda names: dict.fromkeys(names, '1.0'))
    assert 'stack: OpenMMLab and OneDL' in __main__.report().splitlines()
    monkeypatch.setattr(__main__, 'versions', lambda names: {})
    assert 'stack: none' in __main__.report().splitlines()
