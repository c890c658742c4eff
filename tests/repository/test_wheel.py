"""The wheel, installed, in a folder without the repository: names, tools, trainings."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.utils import get_installed_path
from support.engine import IN_PROCESS, SHAPES, TINY, TINY_FASTER_RCNN

pytestmark = pytest.mark.slow
pytest_plugins = ('support.wheel_fixtures',)

Python = Callable[..., CompletedProcess[str]]
NAME = 'faster_rcnn_se_r50.py'
# Two iterations, on few and small images of the built-in data in data/.
SHORT: dict[str, Any] = {
    **TINY,
    **TINY_FASTER_RCNN,
    **IN_PROCESS,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    **{f'{split}_dataloader.dataset.shapes': SHAPES for split in ('train', 'val', 'test')},
}


def write_short(file: Path, base: str) -> None:
    """A user's config that inherits from a shipped one and changes what makes it long."""
    changes = Config()
    changes.merge_from_dict(SHORT)
    file.write_text(f'_base_ = {base}\n{changes.pretty_text}')


def ends_well(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_names(python: Python, site: Path, tmp_path: Path) -> None:
    """What each way to read a config by name gives, and that it is the wheel's, not ours."""
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmse::{NAME}'\ntrain_cfg = dict(max_iters=3)\n")
    (tmp_path / 'wrong.py').write_text("_base_ = 'mmse::fcn_se_r5.py'\n")
    (tmp_path / 'path.py').write_text(f"_base_ = __import__('mmse').config_path('{NAME}')\n")
    # With a folder in the name MMEngine itself finds it, once mmse is imported.
    (tmp_path / 'folder.py').write_text("_base_ = 'mmse::bccd/faster_rcnn_se_r50_bccd.py'\n")
    (tmp_path / 'top.py').write_text(f"_base_ = 'mmse::_base_/../{NAME}'\n")
    code = """
import json
from mmengine.config import Config

plain = {'path': Config.fromfile('path.py').to_dict()}
import mmse
from mmengine.hub import get_config
from mmse.engine.config import load_config

plain['file'] = Config.fromfile(mmse.config_path('faster_rcnn_se_r50.py')).to_dict()
hub = get_config('mmse::bccd/faster_rcnn_se_r50_bccd.py')
read = [Config.fromfile(f'{name}.py').model.backbone.type for name in ('folder', 'top')]
try:
    load_config('wrong.py')
except mmse.utils.errors.UserError as error:
    mistake = str(error)
print(json.dumps([
    mmse.__file__,
    plain['path'] == plain['file'] == load_config('mmse::faster_rcnn_se_r50.py').to_dict(),
    hub.filename,
    read,
    load_config('mine.py').train_cfg.max_iters,
    load_config('configs/fcn_se_r50.py').filename,
    mistake,
]))
"""
    found = json.loads(ends_well(python('-c', code)).splitlines()[-1])
    configs = site / 'mmse/.mim/configs'
    assert found == [
        str(site / 'mmse/__init__.py'),
        True,
        str(configs / 'bccd/faster_rcnn_se_r50_bccd.py'),
        ['mmse.SEResNet', 'mmse.SEResNet'],
        3,
        str(configs / 'fcn_se_r50.py'),
        'wrong.py inherits from mmse::fcn_se_r5.py: no such config in the installed package; '
        'did you mean mmse::fcn_se_r50.py?',
    ]


def test_training_and_testing_with_the_installed_tools(
    python: Python, site: Path, tmp_path: Path
) -> None:
    """The commands that MIM calls."""
    tools = site / 'mmse/.mim/tools'
    write_short(tmp_path / 'mine.py', f"'mmse::{NAME}'")
    done = python(tools / 'train.py', 'mine.py', '--launcher', 'none')
    assert 'Training is done.' in ends_well(done)
    assert done.stderr == ''
    work_dir = tmp_path / 'work_dirs/mine'
    written = Config.fromfile(work_dir / 'mine.py')
    assert (written.train_cfg.max_iters, written.model.backbone.type) == (2, 'mmse.SEResNet')
    assert written.train_dataloader.dataset.data_root == 'data/shapes_128'
    assert (tmp_path / 'data/shapes_128/annotations/instances_train.json').is_file()
    done = python(tools / 'test.py', 'mine.py', work_dir / 'iter_2.pth', '--launcher', 'none')
    assert 'coco/bbox_mAP' in ends_well(done)


def test_training_with_the_tool_of_mmdet(python: Python, tmp_path: Path) -> None:
    """It reads configs with MMEngine alone and imports nothing of ours before."""
    write_short(tmp_path / 'mine.py', f"__import__('mmse').config_path('{NAME}')")
    tool = Path(get_installed_path('mmdet'), '.mim/tools/train.py')
    ends_well(python(tool, 'mine.py'))
    assert (tmp_path / 'work_dirs/mine/iter_2.pth').is_file()


def test_planning_an_ablation_with_the_installed_tools(
    python: Python, site: Path, tmp_path: Path
) -> None:
    name = 'mmse::ablations/squeeze_x_residual_seg.py'
    out = ends_well(python(site / 'mmse/.mim/tools/ablate.py', 'plan', name))
    assert 'Task squeeze_x_residual_seg: mIoU of configs/fcn_se_r50.py' in out
    assert '80 trials: 5 arms x 1 tasks x 16 seeds; results version' in out
    assert 'squeeze_x_residual_seg: 0 of 80 trials have ended' in out
    assert 'a trial takes about' in out


def test_the_other_installed_tools_start(python: Python, site: Path) -> None:
    tools = {path.stem for path in (site / 'mmse/.mim/tools').glob('*.py')}
    others = sorted(tools - {'train', 'test', 'ablate'})
    assert 'predict' in others
    assert 'build_docs' not in others
    code = f"""
import runpy, sys
for name in {others!r}:
    sys.argv = [f'{{name}}.py', '--help']
    try:
        runpy.run_path(f'{site}/mmse/.mim/tools/{{name}}.py', run_name='__main__')
    except SystemExit as end:
        assert not end.code
"""
    out = ends_well(python('-c', code))
    assert [name for name in others if f'usage: {name}.py' in out] == others
