"""Configs of mmse by name, ``mmse::path``, on the command line and in ``_base_``."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.engine import CONFIGS

import mmse
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.engine.config import find_config, load_config, read_file
from mmse.utils.errors import UserError

NAME = 'faster_rcnn_se_r50.py'


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Writes a config in a folder without the repository, which is the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
        return name

    return write


def test_a_name_is_the_file_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (NAME, 'bccd/faster_rcnn_se_r50_bccd.py', 'ablations/checklist_det.py'):
        assert find_config(f'mmse::{name}').samefile(CONFIGS / name)
        assert find_config(f'configs/{name}').samefile(CONFIGS / name)
        assert os.path.samefile(mmse.config_path(name), CONFIGS / name)
    assert load_config(f'mmse::{NAME}').to_dict() == load_config(str(CONFIGS / NAME)).to_dict()


def test_a_file_that_is_here_comes_first(write: Callable[[str, str], str]) -> None:
    here = write(f'configs/{NAME}', 'mine = True')
    assert load_config(here).to_dict() == {'mine': True}


@pytest.mark.parametrize(
    'base',
    [
        f"'mmse::{NAME}'",
        f"['mmse::{NAME}']  # mine",
        f"'mmse::_base_/../{NAME}'",
        f"__import__('mmse').config_path('{NAME}')",
        f"'{CONFIGS / NAME}'",
    ],
)
def test_inheriting_by_name_equals_inheriting_by_path(
    base: str, write: Callable[[str, str], str]
) -> None:
    text = f'''"""About mmse::{NAME}."""
_base_ = {base}
max_iters = 7
train_cfg = dict(max_iters=max_iters)
test_dataloader = _base_.val_dataloader
batch = {{{{_base_.batch_size}}}}
where = '{{{{ fileDirname }}}} {{{{ fileBasename }}}}'
'''
    name = write('mine.py', text)
    cfg = load_config(name)
    expected = load_config(str(CONFIGS / NAME))
    expected.merge_from_dict({'max_iters': 7, 'train_cfg.max_iters': 7, 'batch': 4})
    expected.where = f'{Path.cwd()} mine.py'
    # MMEngine's own inheritance by name would have put the scope mmse into it.
    assert cfg.to_dict() == expected.to_dict()
    assert cfg.filename == name
    assert text in cfg.text


def test_inheriting_at_any_depth(write: Callable[[str, str], str]) -> None:
    write('parts/model.py', f"_base_ = 'mmse::{NAME}'\nhere = '{{{{ fileDirname }}}}'\n")
    write('parts/hooks.py', 'custom_hooks = [dict(type="SyncBuffersHook")]\nleft = 1\n')
    write('middle.py', "_base_ = ['parts/model.py', 'parts/more.py']\n")
    write('parts/more.py', 'more = 2\n')
    top = write('mine.py', "_base_ = 'middle.py'\nmodel = dict(backbone=dict(depth=101))\n")
    cfg = load_config(top)
    assert cfg.model.backbone.depth == 101
    assert cfg.model.backbone.type == 'mmse.SEResNet'
    assert (cfg.here, cfg.more) == (str(Path.cwd() / 'parts'), 2)


def test_a_base_of_another_package_keeps_its_scope(write: Callable[[str, str], str]) -> None:
    bases = ['mmse::_base_/schedule.py', 'mmdet::_base_/models/retinanet_r50_fpn.py']
    cfg = read_file(write('mine.py', f'_base_ = {bases}\ntest_cfg = _base_.val_cfg\n'))
    assert cfg.model['_scope_'] == 'mmdet'
    assert cfg.train_cfg.to_dict() == {
        'type': 'IterBasedTrainLoop',
        'max_iters': 480,
        'val_interval': 240,
    }
    assert cfg.test_cfg.to_dict() == {'type': 'ValLoop'}


def test_a_config_that_names_none_is_read_where_it_is(write: Callable[[str, str], str]) -> None:
    write('base.py', 'depth = 18')
    cfg = read_file(write('mine.py', "_base_ = './base.py'\n# not mmse::fcn_se_r50.py\n"))
    assert (cfg.depth, cfg.filename) == (18, 'mine.py')


def test_mistakes_name_the_nearest(write: Callable[[str, str], str]) -> None:
    wrong = write('wrong.py', "_base_ = 'mmse::faster_rcnn_r50.py'")
    outer = write('outer.py', "_base_ = 'wrong.py'")
    hint = rf'did you mean mmse::{re.escape(NAME)}\?'
    for name, sentence in {
        'mmse::faster_rcnn_r50.py': rf'^mmse::faster_rcnn_r50\.py: no such config .*; {hint}$',
        'configs/faster_rcnn_r50.py': rf'^configs/faster_rcnn_r50\.py: no such config; {hint}$',
        'mmse::': r'^mmse::: no such config; write .* mmse::PATH for one of mmse$',
        wrong: rf'^wrong\.py inherits from mmse::faster_rcnn_r50\.py: .*; {hint}$',
        outer: rf'wrong\.py inherits from mmse::faster_rcnn_r50\.py: .*; {hint}$',
    }.items():
        with pytest.raises(UserError, match=sentence):
            load_config(name)


@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_an_ablation_by_name_has_the_recipes_of_its_file(
    kind: str, write: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They decide whether a trial has been run already, so a name must not change them."""

    def recipes(name: str) -> list[tuple[str, str, str]]:
        study = read_study(name)
        assert study.name == Path(name).stem
        return [(v.task.base, v.arm.name, v.recipe) for v in resolve(study)]

    path = f'ablations/squeeze_x_residual_{kind}.py'
    by_name = recipes(f'mmse::{path}')
    mine = write(f'squeeze_x_residual_{kind}.py', f"_base_ = 'mmse::{path}'\n")
    assert recipes(mine) == by_name
    monkeypatch.chdir(CONFIGS.parent)
    assert recipes(f'configs/{path}') == by_name
    assert len({recipe for _, _, recipe in by_name}) == 5
    assert {base.partition('/')[0] for base, _, _ in by_name} == {'configs'}


def test_the_folders_of_an_ablation_have_its_name(write: Callable[[str, str], str]) -> None:
    text = "_base_ = 'mmse::ablations/checklist_seg.py'\nbase = 'mmse::fcn_se_r50.py'\n"
    study = read_study(write('mine.py', text))
    assert (study.name, study.tasks[0].base) == ('mine', 'mmse::fcn_se_r50.py')
    assert resolve(study)


def test_a_shipped_config_as_the_base_outside_a_clone(tmp_path: Path) -> None:
    """As README names them; MMEngine looks for a base beside the file that inherits from it."""
    (tmp_path / 'mine.py').write_text("_base_ = 'configs/bccd/faster_rcnn_se_r50_bccd.py'\n")
    with pytest.raises(UserError, match=r"write _base_ = 'mmse::bccd/faster_rcnn_se_r50_bccd\.py'"):
        load_config(str(tmp_path / 'mine.py'))
    (tmp_path / 'mine.py').write_text("_base_ = 'base.py'\n")
    with pytest.raises(UserError, match=r'inherits from base\.py, but there is no .*/base\.py$'):
        load_config(str(tmp_path / 'mine.py'))
