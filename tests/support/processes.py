"""Processes forked from one that has imported everything, which takes an interpreter five seconds.

Of these, coverage traces scripts alone: it makes everything slower.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import coverage
import mmengine.runner.runner
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmse.ablation import engines, trial

_processes = multiprocessing.get_context('forkserver')
_processes.set_forkserver_preload(
    [
        *('mmse.engine.run', 'mmse.datasets.builtin', 'mmse.ablation.report', 'mmse.export.onnx'),
        *('mmdet.models', 'mmseg.models', 'mmcv.ops', 'matplotlib.pyplot', 'torch._dynamo'),
    ]
)


def start(
    function: Callable[..., None], *arguments: Any, timeout: float = 120
) -> Callable[[], int]:
    """Call a module's function in a process forked from one that has nothing but the imports.

    Returns:
        Waits for the end and gives the exit code, negative for a signal.
    """
    # The other way to ask for GPUs would keep them from forks of the process that asks.
    environment = {**os.environ, 'PYTORCH_NVML_BASED_CUDA_CHECK': '1'}
    process = _processes.Process(target=_quick, args=(environment, function, *arguments))
    with mock.patch.dict(os.environ, environment):
        # The first call starts the process that the others are forked from, which is not traced.
        os.environ.pop('COVERAGE_PROCESS_CONFIG', None)
        process.start()

    def wait() -> int:
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f'{function.__name__} took longer than {timeout} s')
        return process.exitcode

    return wait


def _quick(environment: dict[str, str], function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with one thread, where trials are forks of their runner.

    MMEngine's questions to compilers and its formatting of configs take seconds, and are left out.
    """
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    mmengine.runner.runner.collect_env = dict
    Config.pretty_text = property(source_of)
    engines.start_trial = ForkedTrial
    function(*arguments)


class ForkedTrial:
    """What ``engines.start_trial`` returns, of a trial in a fork of this process."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = fork(trial_main, folder / trial.LOG, folder, environment)

    def poll(self) -> int | None:
        return self.process.exitcode

    returncode = property(poll)

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int | None:
        self.process.join()
        return self.returncode


def trial_main(folder: Path, environment: dict[str, str]) -> None:
    """``python -m mmse.ablation.trial FOLDER``."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment['OMP_NUM_THREADS']))
    sys.argv = ['trial', str(folder)]
    trial._end_with_parent = lambda: None  # there is no pipe to the runner
    trial.main()


def source_of(cfg: Config) -> str:
    """A config as Python, unformatted."""
    return '\n'.join(f'{key} = {value!r}' for key, value in cfg.to_dict().items())


def in_process(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function as :func:`start` does, and wait for its exit code."""
    return start(function, *arguments)()


def fork(function: Callable[..., None], log: Path, *arguments: Any) -> ForkProcess:
    """Call a function in a fork of this process, with its output added to a file."""
    process = ForkProcess(target=with_output, args=(log, log, function, *arguments))
    process.start()
    return process


def with_output(out: Path, err: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with this process's output and errors added to files."""
    for number, path in ((1, out), (2, err)):
        with open(path, 'ab') as file:
            os.dup2(file.fileno(), number)
    function(*arguments)


def start_script(
    script: Path | str, *arguments: Path | str, cwd: Path | str
) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Start ``python SCRIPT ARGUMENTS`` as :func:`start` does.

    Returns:
        Waits for the end and gives the exit code, output and errors.
    """
    folder = TemporaryDirectory()
    out, err = Path(folder.name, 'out'), Path(folder.name, 'err')
    argv = [str(Path(script).absolute()), *map(str, arguments)]
    end = start(with_output, out, err, _script, argv, str(cwd), timeout=600)

    def wait() -> subprocess.CompletedProcess[str]:
        with folder:
            return subprocess.CompletedProcess(argv, end(), out.read_text(), err.read_text())

    return wait


def run_script(
    script: Path | str, *arguments: Path | str, cwd: Path | str
) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT ARGUMENTS`` as :func:`start` does."""
    return start_script(script, *arguments, cwd=cwd)()


def _script(argv: list[str], cwd: str) -> None:
    os.chdir(cwd)
    sys.argv = argv
    traced = coverage.process_startup()  # None if coverage is not measured
    try:
        runpy.run_path(argv[0], run_name='__main__')
    finally:
        if traced is not None:
            traced.stop()
            traced.save()  # this process will not come to where coverage does it


@HOOKS.register_module()
class KillHook(Hook):
    """End the process with SIGKILL after so many training iterations.

    It is here because every process of :func:`start` imports this module.
    """

    priority = 'LOWEST'

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        if batch_idx + 1 == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
