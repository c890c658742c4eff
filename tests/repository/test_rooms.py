"""The house: imports run one way between the rooms of the package, and tests stand alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the ground up: a room imports from itself and from the rooms before it.
ROOMS = (
    *('version', 'utils', 'registry', 'models', 'checkpoints', 'datasets', 'pages', 'engine'),
    *('gates', 'hooks', 'benchmark', 'export', 'ablation'),
)
# Small packages of Python and torch's world that every room may use are not listed.
OPENMMLAB = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg'}


def imports_of(file: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / 'mmse').parts[0].removesuffix('.py')


FILES = sorted((ROOT / 'mmse').rglob('*.py'))
FACES = {ROOT / 'mmse' / name for name in ('__init__.py', '__main__.py')}


def test_every_room_is_known() -> None:
    assert {room_of(file) for file in FILES if file not in FACES} == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_imports_run_one_way(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for file in (file for file in FILES if file not in FACES and room_of(file) == room):
        for module in imports_of(file):
            if module.startswith('mmse.'):
                assert module.split('.')[1] in allowed, f'{file} imports {module}'


def test_models_need_mmengine_and_mmcv_cnn_only() -> None:
    for file in (ROOT / 'mmse/models').glob('*.py'):
        for module in imports_of(file):
            if module.split('.')[0] in OPENMMLAB:
                assert module.startswith(('mmengine.', 'mmcv.cnn')), f'{file} imports {module}'


def test_no_circle_of_files() -> None:
    names = {file: '.'.join(file.relative_to(ROOT).with_suffix('').parts) for file in FILES}
    files = {name.removesuffix('.__init__'): file for file, name in names.items()}
    arrows = {
        file: {
            files[target]
            for module in imports_of(file)
            for target in (module if module in files else module.rpartition('.')[0],)
            if target in files and files[target] not in (file, ROOT / 'mmse/__init__.py')
        }
        for file in FILES
    }
    while arrows:
        leaves = {file for file, targets in arrows.items() if not targets & set(arrows)}
        assert leaves, f'a circle among {sorted(map(str, arrows))}'
        arrows = {file: targets for file, targets in arrows.items() if file not in leaves}


def test_no_test_imports_another() -> None:
    tests = sorted((ROOT / 'tests').rglob('*.py'))
    names = {file.stem for file in tests if file.name.startswith('test_')}
    for file in tests:
        imported = {part for module in imports_of(file) for part in module.split('.')}
        assert not imported & names, f'{file} imports {imported & names}'


def test_tests_mirror_the_package() -> None:
    folders = {file.relative_to(ROOT / 'tests').parts[0] for file in ROOT.glob('tests/*/test_*.py')}
    assert folders <= {*ROOMS, 'repository'}
    untested = {room for room in ROOMS if (ROOT / 'mmse' / room).is_dir()} - folders
    assert not untested, f'no tests of {untested}'
