"""Runs everything that a page tells users to run: its commands and its blocks of Python."""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope
from support.docs_pages import Item
from support.docs_rules import plain, rule_of
from support.docs_sandbox import (
    FRAGMENTS_BELONG_TO,
    fewer_iterations,
    make_data,
    shorter,
    shorter_question,
)
from support.processes import ForkedTrial, fork
from torch.distributed.run import config_from_args, get_args_parser

from mmse.ablation import engines
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.engine.build import build_model
from mmse.engine.config import find, load_config, read_config
from mmse.engine.config.override import MEANINGFUL
from mmse.engine.preflight import check_learning_rates
from mmse.models.resolve import resolve_stages
from mmse.utils.files import write_json

# Words in capitals stand for something that users have; here is what they have in the tests.
PLACEHOLDERS = {
    'CONFIG': 'configs/fcn_se_r50.py',
    'CLONE': 'clone',
    'FOLDER': 'clone/BCCD',
    'IMAGE': 'image.png',
    'HOST': '127.0.0.1',
    'RANK': '0',
}
PLAIN_CONFIG = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
STAGE_BLOCKS = (3, 4, 6, 3)  # of a ResNet-50


def run_page(folder: Path, items: list[Item]) -> None:
    """Run the items of a page, each in forks of this process, which has everything imported.

    The last lines of what fails are written to ``failures.txt`` in the folder.
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


def ranks(command: str) -> list[dict[str, str]]:
    """The environment of each process of a command: torchrun starts two, anything else one."""
    if not command.startswith('torchrun '):
        return [{}]
    # torchrun's own parser refuses what torchrun would refuse.
    config_from_args(get_args_parser().parse_args(filled(command)[1:]))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    group = {'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    return [{**group, 'RANK': rank, 'LOCAL_RANK': rank} for rank in '01']


def filled(command: str) -> list[str]:
    """The arguments of a command, with the user's own for the words in capitals."""

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


def start_trial(folder: Path, environment: dict[str, str]) -> SimpleNamespace:
    """Run the first trial without attention, and the first with it, in a fork of this process.

    The other trials get the results of one of them; the commands of a page treat them all alike.
    """
    cfg = Config.fromfile(folder / 'config.py').ablation
    record = Path(cfg.record)
    like = '*plain*' if cfg.head.arm == 'plain' else '*'
    alike = (file for file in record.parent.glob(like) if like != '*' or 'plain' not in file.name)
    if first := next(alike, None):
        write_json(record, {**json.loads(first.read_text()), **cfg.head})
        code: int | None = 0
    else:
        code = ForkedTrial(folder, environment).wait()
    return SimpleNamespace(poll=lambda: code, returncode=code)


def run_blocks(items: tuple[Item, ...]) -> None:
    """Read the configs among blocks of Python, plan the questions, execute the rest."""
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
    """The names that a block assigns to; none if it does anything besides assigning."""
    names = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    return names if all(isinstance(node, ast.Assign) for node in tree.body) else set()


def check_config(file: Path, text: str) -> None:
    """Read a config as the tools do, and build its model and its hooks."""
    file.write_text(text)
    check_learning_rates(read_config(str(file)))
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
