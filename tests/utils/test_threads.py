"""How OpenMP's threads wait, which the tools set before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmse.utils import threads

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture(autouse=True)
def started_by_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', [str(TOOLS / 'train.py'), 'config.py'])
    monkeypatch.delitem(sys.modules, 'torch')
    monkeypatch.setattr(threads, 'GPUS', ())
    monkeypatch.setattr(threads, 'said', [])


def test_set_and_said_where_the_user_has_not() -> None:
    environment: dict[str, str] = {}
    threads.shorten_waits(environment)
    assert environment == {'GOMP_SPINCOUNT': '1000'}
    assert len(threads.said) == 1 and 'GOMP_SPINCOUNT=1000 was set' in threads.said[0]


@pytest.mark.parametrize('name', ['GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'])
def test_what_the_user_has_set_stays(name: str) -> None:
    environment = {name: '7'}
    threads.shorten_waits(environment)
    assert environment == {name: '7'} and threads.said == []


@pytest.mark.parametrize('case', ['other program', 'torch is there', 'a GPU'])
def test_left_alone(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if case == 'other program':
        monkeypatch.setattr(sys, 'argv', [str(tmp_path / 'train.py')])
    elif case == 'torch is there':
        monkeypatch.setitem(sys.modules, 'torch', threads)
    else:
        monkeypatch.setattr(threads, 'GPUS', (str(TOOLS),))
    environment: dict[str, str] = {}
    threads.shorten_waits(environment)
    assert environment == {} and threads.said == []


def test_before_torch_is_imported(tmp_path: Path) -> None:
    """In a process that starts as the tools do."""
    script = TOOLS / 'train.py'
    text = (
        f'import sys; sys.argv = [{str(script)!r}]; import mmse; from mmse.utils import threads; '
        'import os; print(os.environ.get("GOMP_SPINCOUNT"), len(threads.said))'
    )
    kept = {k: v for k, v in os.environ.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    command = [sys.executable, '-c', text]
    done = subprocess.run(command, capture_output=True, text=True, env=kept, cwd=tmp_path)
    expected = 'None 0' if any(map(os.path.exists, ('/dev/nvidiactl', '/dev/kfd'))) else '1000 1'
    assert done.stdout.split('\n')[0] == expected, done.stderr
