"""Small studies of the tiny configs, run in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.engine import IN_PROCESS
from support.processes import start_script

ROOT = Path(__file__).parents[2]
ATTENTION = 'model.backbone.attention'
ARMS = {'plain': {ATTENTION: None}, 'se': {ATTENTION: 'se'}}


def write_study(folder: Path, base: Path, **changes: Any) -> Path:
    """A question of two arms and two seeds on a tiny segmenter."""
    keys = {
        'base': str(base),
        'metric': 'mIoU',
        'smallest_effect': 1.0,
        'overrides': IN_PROCESS,
        'arms': ARMS,
        'contrasts': {'se': {'of': 'se', 'against': 'plain'}},
        'seeds': 2,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'question.py'
    file.write_text('\n'.join(f'{key} = {value!r}' for key, value in keys.items()))
    return file


def command_line(folder: Path, command: str, *options: str) -> list[str]:
    """``tools/ablate.py`` and its arguments on the study in a folder."""
    places = ['--results', str(folder / 'results')]
    if command == 'run':
        places += ['--work-dir', str(folder / 'work')]
    tool = str(ROOT / 'tools/ablate.py')
    return [tool, command, str(folder / 'question.py'), *places, *options]


def start_ablate(folder: Path, command: str, *options: str) -> subprocess.Popen[str]:
    """Start ``tools/ablate.py``, and so its trials, in processes that begin with nothing."""
    return subprocess.Popen(
        [sys.executable, *command_line(folder, command, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        # Tests that run in the background of a shell have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def fork_ablate(
    folder: Path, command: str, *options: str
) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Start ``tools/ablate.py``, and so its trials, in forks; returns what waits for its end."""
    return start_script(*command_line(folder, command, *options), cwd=ROOT)


def ablate(folder: Path, command: str, *options: str) -> tuple[int, str, str]:
    """Exit code, output and errors of ``tools/ablate.py`` on the study in a folder."""
    done = fork_ablate(folder, command, *options)()
    return done.returncode, done.stdout, done.stderr


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Every trial file of a study by the trial's name."""
    files = sorted((folder / 'results/trials').glob('*.json'))
    return {file.stem: json.loads(file.read_text()) for file in files}


def outcome(folder: Path) -> dict[str, Any]:
    """What of the trials does not depend on the clock or the machine's memory."""
    clock = ('training_time_s', 'step_time_s', 'peak_memory_bytes', 'log')
    return {
        name: {k: v for k, v in trial.items() if k not in clock}
        for name, trial in trials(folder).items()
    }


def wait_until(condition: Callable[[], Any], seconds: float = 180) -> None:
    """Return as soon as a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
