"""How a test runs what README and the pages of docs/ tell the user to run."""

import ast
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope
from packaging.requirements import Requirement
from support.docs_pages import Item
from support.docs_sandbox import (
    FRAGMENTS_BELONG_TO,
    fewer_iterations,
    make_checkpoint,
    make_data,
    shorter,
    shorter_question,
)
from support.own_data import draw_photo
from support.processes import ForkedTrial, fork
from torch.distributed.run import config_from_args, get_args_parser

from mmse.ablation import engines
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.benchmark import growth
from mmse.engine.build import build_model
from mmse.engine.config import find, load_config, read_config
from mmse.engine.config.override import MEANINGFUL
from mmse.engine.preflight import SOURCES, check_one_cycle
from mmse.models.resolve import resolve_stages
from mmse.utils.files import write_json

ROOT = Path(__file__).parents[2]
# What stands in capitals for something of the user's, and a config that they have.
PLACEHOLDERS = {
    'CONFIG': 'configs/fcn_se_r50.py',
    'CLONE': 'clone',
    'IMAGE': 'image.png',
    'HOST': '127.0.0.1',
    'RANK': '0',
}
PLAIN_CONFIG = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
STAGE_BLOCKS = (3, 4, 6, 3)  # of a ResNet-50


def run_python(argv: list[str]) -> None:
    """A tool, a module or a line, as it stands but for overrides that shorten it."""
    if argv[1] == '-c':
        exec(argv[2], {})
        return
    sys.argv = argv[1:]
    if argv[1] == '-m':
        sys.argv = argv[2:]
        runpy.run_module(argv[2], run_name='__main__', alter_sys=True)
        return
    tool = Path(argv[1]).stem
    for before, arg in pairwise(argv):
        if re.fullmatch(r'work_dirs/.*\.pth', arg) and not Path(arg).exists():
            make_checkpoint(Path(arg))
        if re.fullmatch(r'\w+\.(png|jpg)', arg):
            cv2.imwrite(arg, draw_photo(np.random.default_rng(0), (72, 64))[0])
        if before == argv[1] and tool in ('train', 'test', 'export_onnx', 'inspect_gates'):
            cfg = read_config(arg)
            make_data(cfg)
            if short := [f'{k}={v}'.replace(' ', '') for k, v in shorter(cfg).items()]:
                # Before what the page overrides, which wins.
                if '--cfg-options' not in sys.argv:
                    sys.argv.append('--cfg-options')
                place = sys.argv.index('--cfg-options') + 1
                sys.argv[place:place] = short
    if tool == 'export_onnx' and '--sizes' not in argv:
        sys.argv += ['--sizes', '1x64x64', '2x64x96']
    if tool == 'benchmark':
        sys.argv += ['--size', '64', '--batch', '1', '--depth', '18', '--rounds', '2']
        growth.AXES = {'size': ((64, 64),), 'batch': (1,), 'depth': (18,)}
        growth.CENTRE = {'size': (64, 64), 'batch': 1, 'depth': 18}
    runpy.run_path(argv[1], run_name='__main__')


def start_trial(folder: Path, environment: dict[str, str]) -> SimpleNamespace:
    """Run the first trial of a study in a fork of this process.

    The others get its results: what a page's commands do with them is the same.
    """
    cfg = Config.fromfile(folder / 'config.py').ablation
    record = Path(cfg.record)
    if first := next(record.parent.glob('*.json'), None):
        write_json(record, {**json.loads(first.read_text()), **cfg.head})
        code: int | None = 0
    else:
        code = ForkedTrial(folder, environment).wait()
    return SimpleNamespace(poll=lambda: code, returncode=code)


def parse_only(argv: list[str]) -> None:
    """Whether the tool knows the arguments."""
    parse = ArgumentParser.parse_args

    def parse_and_exit(self: ArgumentParser, *args: Any) -> None:
        parse(self, *args)
        os._exit(0)

    ArgumentParser.parse_args = parse_and_exit
    run_python(['python', *argv[next(i for i, a in enumerate(argv) if a.endswith('.py')) :]])
    raise AssertionError('no arguments were parsed')


def collect(argv: list[str]) -> None:
    """Whether pytest finds tests by these arguments."""
    sys.exit(pytest.main([*argv[argv.index('pytest') + 1 :], '--collect-only', '-q']))


def check_installable(argv: list[str]) -> None:
    """Whether extras and files exist, and the rest can be read as requirements."""
    with mock.patch('setuptools.setup') as setup:
        runpy.run_path(str(ROOT / 'setup.py'))
    extras = set(setup.call_args.kwargs['extras_require'])
    for before, arg in pairwise(argv[argv.index('install') :]):
        name, _, extra = arg.rstrip(']').partition('[')
        if before in ('-r', '-c', '-e') or name == '.':
            assert Path(name).exists() and set(filter(None, extra.split(','))) <= extras, arg
        elif not arg.startswith(('-', 'dist/mmse-')) and before not in ('-f', '-i', '--index-url'):
            wanted = Requirement(arg)
            assert wanted.name != 'mmse' or wanted.extras <= extras, arg


# How a command is run, by what it begins with; the first that fits. Those with a reason are not
# run: what can be known of them is checked.
RULES: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    r'pip install ': (check_installable, 'needs the network'),
    r'mim download ': (lambda argv: shlex.join(argv) in SOURCES.values(), 'needs the network'),
    r'pip wheel \. ': (
        lambda _: find_spec('wheel') is not None,
        'is what tests/repository/test_wheel.py does',
    ),
    r'mim search mmse --model ': (
        lambda argv: argv[-1] in Path('configs/metafile.yml').read_text().lower(),
        'needs MIM',
    ),
    r'pre-commit install': (lambda _: (ROOT / '.pre-commit-config.yaml').is_file(), 'needs git'),
    r'git clone https://': (
        lambda argv: f'({argv[2]})' in (ROOT / 'docs/data.md').read_text(),
        'needs the network',
    ),
    r'source activate': (
        lambda _: ',.venv-onedl,.venv)' in (ROOT / 'Makefile').read_text(),
        'made the environment of this test',
    ),
    r'bash tools/setup_env\.sh ': (
        lambda argv: subprocess.run(['bash', '-n', argv[1]]).returncode == 0,
        'made the environment of this test',
    ),
    r'python -m pytest -n': (lambda _: find_spec('xdist') is not None, 'is this test'),
    r'python -m (ruff|mypy)\b': (lambda argv: find_spec(argv[2]) is not None, 'is no test'),
    r'(python -m )?pytest ': (collect, 'the tests run anyway'),
    r'srun ': (parse_only, 'needs a cluster'),
    r'python .*--device cuda': (parse_only, 'needs a GPU'),
    r'python tools/experiments/': (parse_only, 'takes hours'),
    r'python tools/export_detector\.py ': (
        run_python if find_spec('mmdeploy') else parse_only,
        'needs mmdeploy',
    ),
    r'python (tools/\w+\.py|\$\(.*?\)/\.mim/tools/\w+\.py|-m mmse|-c) ?': (run_python, ''),
}


def rule_of(item: Item) -> Callable[[list[str]], None]:
    """How a command is run.

    Raises:
        LookupError: Nothing is known of it.
    """
    for pattern, (function, _) in RULES.items():
        if re.match(pattern, plain(item.text)):
            return function
    raise LookupError(f'{item.where}: nothing in RULES of docs_utils.py runs `{item.text}`')


def plain(command: str) -> str:
    """A command without variables, virtual environment and launcher, and what MIM makes of it."""
    command = re.sub(r'^(\w+=\S+ )+|\.venv[\w-]*/bin/', '', command)
    command = re.sub(r'^mim run mmse (\w+)', r'python tools/\1.py', command)
    command = re.sub(
        r'^mim (train|test) mmse (\S+)( --checkpoint)?', r'python tools/\1.py mmse::\2', command
    )
    return re.sub(r'^torchrun .*? (?=tools/)|^python3(?= )', 'python ', command)


def ranks(command: str) -> list[dict[str, str]]:
    """The environment of each process of a command: none, or what torchrun gives two of them."""
    if not command.startswith('torchrun '):
        return [{}]
    # Refuses what torchrun would.
    config_from_args(get_args_parser().parse_args(filled(command)[1:]))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    group = {'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    return [{**group, 'RANK': rank, 'LOCAL_RANK': rank} for rank in '01']


def filled(command: str) -> list[str]:
    """The arguments of a command, with the user's own for what stands in capitals."""

    def output(found: re.Match[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(found[1], {})
        return out.getvalue().strip()

    command = re.sub(r'\$\(python -c "([^"]*)"\)', output, command)
    for name, own in PLACEHOLDERS.items():
        command = re.sub(rf'\b{name}\b', own, command)
    config = re.search(r'configs/\S*?([\w-]+)\.py', command)
    checkpoint = f'work_dirs/{config and config[1]}/iter_480.pth'
    return shlex.split(re.sub(r'\bCHECKPOINT\b', checkpoint, command))


def run_page(folder: Path, items: list[Item]) -> None:
    """Run what a page says in a process that has everything imported, each item in forks of it.

    What fails goes to ``failures.txt`` of the folder.
    """
    os.chdir(folder)
    find.own_configs = lambda: folder / 'configs'
    engines.start_trial = start_trial
    whole = [(item,) for item in items if not item.python or item.file]
    rest = tuple(item for item in items if item.python and not item.file)
    for together in filter(None, [*whole, rest]):
        environments = ranks(together[0].text)
        log = Path(f'log of {together[0].where}.txt')
        forks = [fork(run_items, log, together, more) for more in environments]
        for process in forks:
            process.join()
        if any(process.exitcode for process in forks):
            lines = log.read_text(errors='replace').splitlines()[-15:]
            with open('failures.txt', 'a') as file:
                file.write('\n'.join([f'{together[0].where}: {together[0].text}', *lines, '\n']))


def run_items(items: tuple[Item, ...], environment: dict[str, str]) -> None:
    """Run a command, which ends this process with its exit code, or blocks of Python."""
    if items[0].python:
        run_blocks(items)
        return
    os.environ.update(environment)
    assert rule_of(items[0])(filled(plain(items[0].text))) is not False


def run_blocks(items: tuple[Item, ...]) -> None:
    """Run blocks of Python: configs are read, questions planned, the rest is executed."""
    namespace: dict[str, Any] = {}
    for item in items:
        tree = ast.parse(item.text)
        names = assigned(tree)
        if '_base_' in names:
            check_config(Path(item.file or 'mine.py'), item.text)
        elif 'contrasts' in names or 'factors' in names:
            file = Path(item.file or 'question.py')
            file.write_text(shorter_question(item.text))
            assert len(resolve(read_study(file))) > 1
        elif names and names <= {*MEANINGFUL, 'attention', 'plugins'}:
            for statement in tree.body:
                check_fragment(ast.unparse(statement))
        else:
            namespace = namespace or {'cfg': read_config(PLAIN_CONFIG)}
            exec(compile(item.text, item.where, 'exec'), namespace)


def assigned(tree: ast.Module) -> set[str]:
    """What a block assigns to, or nothing if it does anything else."""
    names = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    return names if all(isinstance(node, ast.Assign) for node in tree.body) else set()


def check_config(file: Path, text: str) -> None:
    """Read a config as the tools do, and build its model and its hooks."""
    file.write_text(text)
    check_one_cycle(read_config(str(file)))
    file.write_text(fewer_iterations(text))
    make_data(read_config(str(file)))
    cfg = load_config(str(file))
    cfg.merge_from_dict(shorter(cfg))
    init_default_scope(cfg.default_scope)
    build_model(cfg)
    for hook in cfg.get('custom_hooks') or []:
        HOOKS.build(hook)


def check_fragment(text: str) -> None:
    """Use one statement of a config, in a config that it belongs to."""
    values: dict[str, Any] = {}
    exec(text, values)
    if 'attention' in values:
        resolve_stages(values['attention'], STAGE_BLOCKS)
    elif 'plugins' in values:
        MODELS.build({'type': 'mmdet.ResNet', 'depth': 50, 'plugins': values['plugins']})
    else:
        check_config(Path('fragment.py'), f"_base_ = '{FRAGMENTS_BELONG_TO}'\n{text}")
