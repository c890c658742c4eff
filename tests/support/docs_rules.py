"""How the tests run each command that README and the pages of docs/ tell users to run."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement
from support.docs_pages import Item
from support.docs_sandbox import make_checkpoint, make_data, shorter
from support.own_data import draw_photo

from mmse.benchmark import growth
from mmse.engine.config import read_config
from mmse.engine.preflight import SOURCES

ROOT = Path(__file__).parents[2]
# Tools whose first argument is a config.
OF_A_CONFIG = ('train', 'test', 'export_onnx', 'inspect_gates', 'predict')


def run_python(argv: list[str]) -> None:
    """Run a tool, a module or a line of code; only overrides that shorten a training are added."""
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
        if before == argv[1] and tool in OF_A_CONFIG:
            cfg = read_config(arg)
            make_data(cfg)
            if short := [f'{k}={v}'.replace(' ', '') for k, v in shorter(cfg).items()]:
                # Before the overrides of the page, so that those win.
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


def parse_only(argv: list[str]) -> None:
    """Check that the tool knows the arguments."""
    parse = ArgumentParser.parse_args

    def parse_and_exit(self: ArgumentParser, *args: Any) -> None:
        parse(self, *args)
        os._exit(0)

    ArgumentParser.parse_args = parse_and_exit
    run_python(['python', *argv[next(i for i, a in enumerate(argv) if a.endswith('.py')) :]])
    raise AssertionError('no arguments were parsed')


def collect(argv: list[str]) -> None:
    """Check that pytest finds tests by these arguments."""
    sys.exit(pytest.main([*argv[argv.index('pytest') + 1 :], '--collect-only', '-q']))


def check_installable(argv: list[str]) -> None:
    """Check that extras and files exist and that the rest are valid requirements."""
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


# The first pattern that a command begins with decides how it is run. Where there is a reason not to
# run it, it is checked as far as possible.
RULES: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    r'pip install ': (check_installable, 'needs the network'),
    r'conda (create|activate) ': (
        lambda argv: '3.10' in argv[-2] or argv[1] == 'activate',
        'needs conda',
    ),
    r'docker build ': (lambda argv: (ROOT / argv[argv.index('-f') + 1]).is_file(), 'needs Docker'),
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
        lambda _: 'VENV := .venv$(' in (ROOT / 'Makefile').read_text(),
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
    r'python tools/ablate\.py run \S+_(coco|ade20k)\.py': (parse_only, 'takes weeks'),
    r'python tools/train\.py configs/classification/': (
        lambda argv: (ROOT / argv[2]).is_file(),
        'is what tests/engine/test_classification.py does',
    ),
    r'python tools/export_detector\.py ': (
        run_python if find_spec('mmdeploy') else parse_only,
        'needs mmdeploy',
    ),
    r'python (tools/\w+\.py|\$\(.*?\)/\.mim/tools/\w+\.py|-m mmse|-c) ?': (run_python, ''),
}


def rule_of(item: Item) -> Callable[[list[str]], None]:
    """The function that runs or checks a command.

    Raises:
        LookupError: No rule fits.
    """
    for pattern, (function, _) in RULES.items():
        if re.match(pattern, plain(item.text)):
            return function
    raise LookupError(f'{item.where}: no rule in docs_rules.py runs `{item.text}`')


def plain(command: str) -> str:
    """A command without variables, virtual environment and launcher; MIM's as the tool it calls."""
    command = re.sub(r'^(\w+=\S+ )+|\.venv[\w-]*/bin/', '', command)
    command = re.sub(r'^mim run mmse (\w+)', r'python tools/\1.py', command)
    command = re.sub(
        r'^mim (train|test) mmse (\S+)( --checkpoint)?', r'python tools/\1.py mmse::\2', command
    )
    return re.sub(r'^torchrun .*? (?=tools/)|^python3(?= )', 'python ', command)
