"""Where trials run: processes of this machine, or tasks of a Ray cluster."""

import logging
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mmse.ablation.failure import LOG
from mmse.ablation.trial import BUSY, known_end
from mmse.utils.errors import UserError

Ended = Iterator[tuple[Path, int]]
Engine = Callable[[Sequence[Path]], Ended]

BUSY_WAIT_S = 5


def until_ended(engine: Engine, folders: Sequence[Path]) -> Ended:
    """Run trials, and wait for those that another process runs or whose pretraining is running.

    Args:
        engine: Runs working folders and yields each with its exit code as it ends.
        folders: The trials' working folders, in the order to start them.

    Yields:
        Folder and exit code of each trial as it ends; never ``BUSY``.
    """
    waiting = folders
    while waiting:
        busy = []
        for folder, code in engine(waiting):
            if code == BUSY:
                busy.append(folder)
            else:
                yield folder, code
        if busy:
            print(f'{len(busy)} trials wait for another process or a pretraining', flush=True)
            time.sleep(BUSY_WAIT_S)
        waiting = busy


def start_trial(
    folder: Path, environment: dict[str, str], cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a trial's process.

    It ends when this process does, and does not get a Ctrl-C of the terminal, which is for this
    process to handle.
    """
    with open(folder / LOG, 'ab') as log:
        log.write(f'--- trial started on {platform.node()}\n'.encode())
        log.flush()
        return subprocess.Popen(
            [sys.executable, '-m', 'mmse.ablation.trial', str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            cwd=cwd,
            start_new_session=True,
        )


def run_locally(folders: Sequence[Path], workers: int) -> Ended:
    """Run trials in ``workers`` processes at a time.

    Each has its share of the CPU's threads, and a GPU of its own where there are enough. A place
    that becomes free goes to the first trial that can start, so that the first seeds are whole
    before the last ones begin.

    Args:
        folders: The trials' working folders, in the order to start them.
        workers: Number of processes, at least 1.

    Yields:
        Folder and exit code of each trial as it ends; ``BUSY`` for those that still wait for
        another process when all others have ended. Closing the generator kills those that run.
    """
    waiting = list(folders)
    running: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for slot in range(workers):
                while slot not in running and (found := _first_free(waiting)) is not None:
                    folder, code = found
                    waiting.remove(folder)
                    if code is not None:
                        yield folder, code
                    else:
                        running[slot] = folder, start_trial(folder, _share(slot, workers))
            if not running:
                yield from ((folder, BUSY) for folder in waiting)
                return
            while all(process.poll() is None for _, process in running.values()):
                time.sleep(0.1)
            for slot, (folder, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    yield folder, process.returncode
    finally:
        for _, process in running.values():
            process.kill()
            process.wait()


def _first_free(waiting: Sequence[Path]) -> tuple[Path, int | None] | None:
    """The first trial that waits for nothing, and its exit code if it has ended already."""
    for folder in waiting:
        if (code := known_end(folder)) != BUSY:
            return folder, code
    return None


def _share(slot: int, workers: int) -> dict[str, str]:
    share = {'OMP_NUM_THREADS': str(max(1, len(os.sched_getaffinity(0)) // workers))}
    if torch.cuda.is_available():
        gpus = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
        if gpus == ['']:
            gpus = list(map(str, range(torch.cuda.device_count())))
        share['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
    return share


def run_on_ray(folders: Sequence[Path], address: str | None, cpus: float, gpus: float) -> Ended:
    """Run trials as tasks of a Ray cluster, whose nodes share the working folders.

    A trial whose node is lost is started again on another and resumes from its latest checkpoint.

    Args:
        folders: The trials' working folders.
        address: Address of a cluster, ``auto`` for the one of this machine; None starts one here.
        cpus: CPUs that a trial gets; it uses as many threads.
        gpus: GPUs that a trial gets.

    Yields:
        Folder and exit code of each trial as it ends.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    if find_spec('ray') is None:
        raise UserError("--engine ray needs Ray: pip install 'mmse[ray]'")
    import ray

    own = not ray.is_initialized()
    if own:
        try:
            if address is not None and ':' in address:
                # Ray itself would try again for minutes.
                host, _, port = address.rpartition('/')[2].rpartition(':')
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError) as error:
            raise UserError(f'--address {address}: no Ray cluster answers: {error}') from error
    nodes: Any = ray.nodes  # has no types
    for name, amount in {'CPU': cpus, 'GPU': gpus}.items():
        if amount > max(node['Resources'].get(name, 0) for node in nodes() if node['Alive']):
            raise UserError(f'no node of the Ray cluster has the {amount:g} {name} of a trial')
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=5)(_on_node)
    pending: dict[Any, Path] = {
        task.remote(str(f), max(1, int(cpus)), os.getcwd()): f for f in folders
    }
    try:
        while pending:
            for ended in ray.wait(list(pending))[0]:
                folder = pending.pop(ended)
                try:
                    yield folder, ray.get(ended)
                except ray.exceptions.RayError as error:
                    with open(folder / LOG, 'a', encoding='utf-8') as log:
                        log.write(f'Ray gave the trial up: {error}\n')
                    yield folder, 1
    finally:
        for task_of_pending in pending:
            ray.cancel(task_of_pending, force=True)
        if own:
            ray.shutdown()


def _on_node(folder: str, threads: int, cwd: str) -> int:
    """Run a trial as a task of Ray; its process ends with the worker that started it."""
    if (code := known_end(Path(folder))) is not None:
        return code
    return start_trial(Path(folder), {'OMP_NUM_THREADS': str(threads)}, cwd).wait()
