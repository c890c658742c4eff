"""What a trial's id depends on, and that the committed trials are what their configs ask for."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from mmse.ablation import identity, variants
from mmse.ablation.folders import Folders
from mmse.ablation.identity import RESULTS_VERSION, recipe_of, shaping_part, trial_id
from mmse.ablation.plan import plan_of, read_plan
from mmse.ablation.provenance import source_commit
from mmse.ablation.records import read_trials
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.variants import Trial, resolve
from mmse.utils.files import write_json

ROOT = Path(__file__).parents[2]
STUDIES = sorted(f.parent.name for f in (ROOT / 'results/ablations').glob('*/plan.json'))
# Those whose data are in the repository, or made from it.
BUILT_IN = [name for name in STUDIES if not re.search('bccd|camvid', name)]


@pytest.fixture
def cfg(monkeypatch):
    monkeypatch.chdir(ROOT)
    return resolve(read_study('configs/ablations/squeeze_x_residual_det.py'))[1].cfg


def changed(cfg: Config, **keys) -> Config:
    new = copy.deepcopy(cfg)
    new.merge_from_dict(keys)
    return new


@pytest.mark.parametrize(
    'keys',
    [
        {'width': 3, 'data_dir': 'elsewhere'},  # variables of the config file
        {'work_dir': 'elsewhere', 'log_level': 'ERROR', 'experiment_name': 'other'},
        {'test_dataloader.batch_size': 7, 'test_evaluator.metric': 'segm'},
        {'default_hooks.logger.interval': 7, 'default_hooks.checkpoint.interval': 7},
        {'randomness': {'seed': 5}},
        {'custom_hooks': [{'type': 'mmse.IterationSeedHook'}]},  # one that looks, less
        {'train_dataloader.sampler.type': 'mmdet.InfiniteSampler'},  # the default scope
        {'optim_wrapper.optimizer.fused': False},  # a form of the same step
        {'data_preprocessor': {'type': 'DetDataPreprocessor', 'mean': [0, 0, 0]}},
        {
            'model.backbone.attention': {
                **{'_delete_': True, 'preset': 'se_stable', 'fusion': 'sum'},
                'learnable_alpha': False,
            }
        },
    ],
)
def test_what_shapes_no_result_is_no_part_of_the_recipe(cfg, keys):
    assert recipe_of(changed(cfg, **keys), 'identity') == recipe_of(cfg, 'identity')


@pytest.mark.parametrize(
    'keys',
    [
        {'optim_wrapper.optimizer.lr': 0.5},
        {'train_dataloader.batch_size': 7},
        {'train_dataloader.num_workers': 2},  # each draws its own augmentation
        {'val_evaluator.metric': 'segm'},
        {'train_cfg.max_iters': 239},
        {'model.backbone.depth': 34},
        {'model.backbone.attention': 'se'},
        {'model.data_preprocessor.mean': [0, 0, 0]},
        {'custom_hooks': [{'type': 'EMAHook'}]},
        {'load_from': 'weights.pth'},
        {'randomness': {'deterministic': True}},
    ],
)
def test_what_shapes_a_result_is_part_of_the_recipe(cfg, keys):
    assert recipe_of(changed(cfg, **keys), 'identity') != recipe_of(cfg, 'identity')
    assert recipe_of(cfg, 'default') != recipe_of(cfg, 'identity')


def test_the_id_depends_on_recipe_seed_data_and_version(monkeypatch):
    name = trial_id('', 'squeeze=avg, T=1', 3, 'recipe', 'data')
    assert re.fullmatch(r'squeeze=avg_T=1-seed3-[0-9a-f]{10}', name)
    assert trial_id('det', 'plain', 0, 'recipe', 'data').startswith('det-plain-seed0-')
    hashes = {
        trial_id('', 'a', seed, recipe, data)[-10:]
        for seed, recipe, data in ((0, 'r', 'd'), (1, 'r', 'd'), (0, 's', 'd'), (0, 'r', 'e'))
    }
    assert len(hashes) == 4
    monkeypatch.setattr(identity, 'RESULTS_VERSION', RESULTS_VERSION + 1)
    assert trial_id('', 'a', 0, 'r', 'd')[-10:] not in hashes


@pytest.mark.parametrize('name', STUDIES)
def test_the_plans_configs_resolve_to_the_recipes_of_today(name, monkeypatch):
    """A refactoring of the configs has left alone what the committed trials were trained with."""
    monkeypatch.chdir(ROOT)
    study = read_study(f'configs/ablations/{name}.py')
    plan = read_plan(ROOT / 'results/ablations' / name)
    arms = resolve(study)
    for variant in arms:
        kept = plan.variant('', variant.arm.name)
        then = Config.fromstring(kept.config, '.py')
        assert shaping_part(then) == shaping_part(variant.cfg)
        assert variant.recipe == kept.recipe
        if (before := variant.pretraining) is None:
            assert recipe_of(then, plan.start) == kept.recipe
        else:
            then = Config.fromstring(plan.tasks[0].pretraining.config, '.py')
            assert shaping_part(then) == shaping_part(before.cfg)
        assert variant.attention == kept.attention
    asked = plan_of(study, [Trial(v, s, '') for v in arms for s in study.seeds])
    asked, kept = (
        replace(p, tasks=[replace(task, pretraining=None) for task in p.tasks])
        for p in (asked, plan)
    )
    keys = ('name', 'start', 'seeds', 'looks', 'smallest_dose', 'results_version')
    for key in (*keys, 'tasks', 'arms', 'contrasts'):
        assert getattr(kept, key) == getattr(asked, key), key


def whole_seeds(name: str) -> list[int]:
    """The seeds of a study that have all arms among the committed trials: the first of its plan."""
    folder = ROOT / 'results/ablations' / name
    plan, trials = read_plan(folder), read_trials(folder)
    ended = [{t.seed for t in trials if t.arm == variant.arm} for variant in plan.variants]
    seeds = set.intersection(*ended)
    assert seeds == set(plan.seeds[: len(seeds)])
    return list(plan.seeds[: len(seeds)])


@pytest.mark.parametrize('name', STUDIES)
def test_run_finds_every_committed_trial_finished(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    shutil.copytree(ROOT / 'results/ablations' / name, tmp_path / 'results')
    seeds = whole_seeds(name)
    study = read_study(f'configs/ablations/{name}.py', {'seeds': seeds, 'looks': [len(seeds)]})
    if name not in BUILT_IN:
        data = {v.arm: v.data for v in read_plan(tmp_path / 'results').variants}
        monkeypatch.setattr(variants, '_data_of', lambda variant, _: data.get(variant.arm.name))
    arms = resolve(study)
    folders = Folders(tmp_path / 'results', tmp_path / 'work')
    assert run(study, arms, folders, lambda waiting: pytest.fail('a trial is run')) == []
    count = len(arms) * len(seeds)
    assert capsys.readouterr().out == f'{count} trials, {count} finished before\n'


def test_the_tutorials_configs_are_those_of_its_trials(tmp_path, monkeypatch):
    """Its data are not in the repository; of them the config takes the classes alone."""
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/tutorial.md').read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    Path('my_data.py').write_text(next(b for b in blocks if b.startswith('_base_')))
    Path('my_question.py').write_text(next(b for b in blocks if b.startswith('base =')))
    names = ('RBC', 'WBC', 'Platelets')
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 32, 'height': 32}],
        'annotations': [],
        'categories': [{'id': i, 'name': name} for i, name in enumerate(names, 1)],
    }
    for split in ('train', 'val'):
        Path('data/mine', split).mkdir(parents=True)
        write_json(Path(f'data/mine/annotations/instances_{split}.json'), content)
    plan = read_plan(ROOT / 'results/earlier/tutorial')
    for variant in resolve(read_study('my_question.py')):
        kept = plan.variant('', variant.arm.name)
        then = shaping_part(Config.fromstring(kept.config, '.py'))
        now = shaping_part(variant.cfg)
        # Its schedule was another one, in which the attention could not have a rate of its own.
        for part in (then, now):
            del part['param_scheduler']
            part['optim_wrapper']['paramwise_cfg'].pop('custom_keys', None)
        assert then == now


@pytest.mark.parametrize('plan_file', sorted((ROOT / 'results').glob('*/*/plan.json')), ids=str)
def test_every_committed_trial_is_that_of_its_plan(plan_file):
    """Also where the data are not here: the ids follow from recipe, seed, data and version."""
    folder = plan_file.parent
    plan, trials = read_plan(folder), read_trials(folder)
    assert len(trials) >= len(plan.variants)
    for trial in trials:
        variant = plan.variant(trial.task, trial.arm)
        assert (trial.recipe, trial.data) == (variant.recipe, variant.data)
        assert trial.results_version == plan.results_version == RESULTS_VERSION
        assert trial.id == trial_id(trial.task, trial.arm, trial.seed, trial.recipe, trial.data)
        assert (folder / 'trials' / f'{trial.id}.json').is_file()


def refactor(package: Path) -> None:
    """Rename a private function, reword a warning, and move a file."""
    functions = re.compile(r'^ *def (_[a-z]\w+)\(', re.M)
    name = next(
        match[1]
        for file in sorted((package / 'models').glob('*.py'))
        if (match := functions.search(file.read_text()))
    )
    for file in (package / 'models').glob('*.py'):
        file.write_text(re.sub(rf'\b{name}\b', f'{name}_renamed', file.read_text()))
    file = package / 'models/resolve.py'
    text = file.read_text()
    assert 'without effect and dropped' in text
    file.write_text(text.replace('without effect and dropped', 'of no effect, so left out'))
    (package / 'datasets/scenes.py').rename(package / 'utils/drawing.py')
    for file in package.rglob('*.py'):
        text = file.read_text()
        file.write_text(text.replace('mmse.datasets.scenes', 'mmse.utils.drawing'))


@pytest.mark.slow
def test_a_refactoring_leaves_every_committed_trial_valid(tmp_path):
    """In a copy of the package, by the command line."""
    for part in ('mmse', 'configs', 'tools', 'results/ablations'):
        shutil.copytree(ROOT / part, tmp_path / part)
    refactor(tmp_path / 'mmse')
    code = 'import runpy, sys, mmse; print(mmse.__file__)\n'
    for name in BUILT_IN:
        seeds = whole_seeds(name)
        given = f'seeds={seeds}'.replace(' ', ''), f'looks=[{len(seeds)}]'
        options = f"'--cfg-options', {given[0]!r}, {given[1]!r}"
        code += f"sys.argv = ['', 'run', 'configs/ablations/{name}.py', {options}]\n"
        code += "runpy.run_path('tools/ablate.py', run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_relative_to(tmp_path)
    for name in BUILT_IN:
        arms = len(read_plan(ROOT / 'results/ablations' / name).variants)
        count = arms * len(whole_seeds(name))
        assert f'{count} trials, {count} finished before\n' in done.stdout
    assert not (tmp_path / 'data').exists()


def test_the_commit_is_that_of_the_package_and_says_when_there_are_changes(tmp_path):
    package = tmp_path / 'mmse'
    package.mkdir()
    (package / '__init__.py').write_text('')
    assert source_commit(package) is None

    def git(*arguments: str) -> str:
        who = ['-c', 'user.name=n', '-c', 'user.email=e']
        command = ['git', '-C', str(tmp_path), *who, *arguments]
        return subprocess.check_output(command, text=True).strip()

    git('init', '-q')
    (tmp_path / 'other.py').write_text('')
    git('add', 'other.py')
    git('commit', '-q', '-m', 'of another project, which has installed the package')
    source_commit.cache_clear()
    assert source_commit(package) is None
    git('add', '.')
    git('commit', '-q', '-m', 'one')
    source_commit.cache_clear()
    assert source_commit(package) == git('rev-parse', '--short=10', 'HEAD')
    (tmp_path / 'other.py').write_text('x = 1\n')  # no part of the package
    source_commit.cache_clear()
    assert '+' not in source_commit(package)
    (package / '__init__.py').write_text('x = 1\n')
    source_commit.cache_clear()
    assert source_commit(package) == git('rev-parse', '--short=10', 'HEAD') + '+changes'
    source_commit.cache_clear()
