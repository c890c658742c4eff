"""What takes time is done once: building the model, reading a checkpoint, parsing annotations."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from support.engine import (
    CONFIGS,
    IN_PROCESS,
    TINY,
    TINY_FASTER_RCNN,
    TINY_FCN,
    args_for_test,
    args_for_train,
    shapes_at,
)
from support.own_data import detection_config, write_detection

from mmse.checkpoints import safe_load
from mmse.datasets import coco_file
from mmse.engine.build import build_model, build_runner
from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.engine.run import test as run_test
from mmse.engine.run import train
from mmse.models import SEResNet, staged

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('fresh_logger', 'no_env_report')


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing was done since the test began."""
    counter: Counter[str] = Counter()
    safe_load.checked.clear()

    def count(owner: Any, name: str, key: Any) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counter[key(*args)] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(SEResNet, '__init__', lambda *_: 'backbones built')
    count(staged, 'start_at_identity', lambda *_: 'weights adapted')
    count(torch, 'load', lambda path, *_: f'{Path(path).name} read')
    count(coco_file, 'parse', lambda path: f'{path.name} parsed')
    return counter


@pytest.mark.slow
def test_a_training_from_a_checkpoint(tmp_path: Path, counts: Counter[str]) -> None:
    write_detection(tmp_path / 'data', {'train': 4, 'val': 2})
    options = {**TINY, **TINY_FASTER_RCNN, **IN_PROCESS, 'train_cfg.max_iters': 2}
    net = SEResNet(18, base_channels=8, attention='se')
    torch.save(net.state_dict(), tmp_path / 'pretrained.pth')
    whole = {f'backbone.{key}': value for key, value in net.state_dict().items()}
    torch.save(whole, tmp_path / 'start.pth')
    options['load_from'] = str(tmp_path / 'start.pth')
    options['model.backbone.attention'] = 'se'
    options['model.backbone.init_cfg'] = {
        '_delete_': True,
        'type': 'Pretrained',
        'checkpoint': str(tmp_path / 'pretrained.pth'),
    }
    config = detection_config(tmp_path, tmp_path / 'data')
    counts.clear()
    train(args_for_train(config, tmp_path / 'work', cfg_options=options))
    assert counts == {
        'backbones built': 1,
        'weights adapted': 2,  # of init_cfg, then of load_from
        'pretrained.pth read': 1,
        'start.pth read': 1,
        'train.json parsed': 1,
        'val.json parsed': 1,
    }
    kept = [path for path, *_ in coco_file.annotations._contents if str(tmp_path) in str(path)]
    assert not safe_load.checked._contents and not kept


@pytest.mark.slow
def test_a_test_of_a_checkpoint(
    tmp_path: Path, tiny_configs: dict[str, Path], counts: Counter[str]
) -> None:
    work = tmp_path / 'work'
    train(args_for_train(tiny_configs['seg'], work, cfg_options={'train_cfg.max_iters': 1}))
    counts.clear()
    run_test(args_for_test(tiny_configs['seg'], work / 'iter_1.pth', tmp_path / 'test'))
    assert counts == {'backbones built': 1, 'weights adapted': 1, 'iter_1.pth read': 1}
    assert not safe_load.checked._contents


def test_a_checkpoint_that_changes_after_its_check_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / 'weights.pth'
    torch.save({'w': torch.zeros(1)}, path)
    safe_load.read_checkpoint(path, keep=True)
    torch.save({'w': torch.ones(1000)}, path)
    assert len(safe_load.load_from_local(str(path))['w']) == 1000
    assert len(safe_load.load_from_local(str(path))['w']) == 1000
    safe_load.checked.clear()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['faster_rcnn_se_r50', 'fcn_se_r50'])
@pytest.mark.parametrize('seed', [3, None])
def test_initial_weights_are_those_of_mmengine(name: str, seed: int | None, tmp_path: Path) -> None:
    """A Runner that builds the model itself draws the same numbers."""
    detection = name.startswith('faster')
    tiny = {**TINY, **(TINY_FASTER_RCNN if detection else TINY_FCN)}
    tiny |= {**IN_PROCESS, **shapes_at(tmp_path / 'shapes', detection), 'randomness.seed': seed}
    cfg = load_config(str(CONFIGS / f'{name}.py'), tiny)
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
    cfg.visualizer = None
    init_default_scope(cfg.default_scope)
    cfg.experiment_name = 'theirs'
    theirs = Runner.from_cfg(cfg)
    theirs._init_model_weights()
    cfg.experiment_name = 'ours'
    ours = build_runner(cfg, preflight(cfg, ('train',), whole_checkpoint=False))
    ours._init_model_weights()
    pairs = zip(theirs.model.state_dict().values(), ours.model.state_dict().values(), strict=True)
    equal = [torch.equal(a, b) for a, b in pairs]
    assert all(equal) == (seed is not None)  # without a seed every run draws its own


def test_ranks_with_different_seeds_stay_different(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load_config(str(CONFIGS / 'fcn_se_r50.py'), TINY_FCN)
    init_default_scope(cfg.default_scope)
    cfg.randomness = {'seed': 5, 'diff_rank_seed': True}
    for rank in (0, 2):
        monkeypatch.setenv('RANK', str(rank))
        built = build_model(cfg)
        after = np.random.random()
        set_random_seed(5 + rank)
        assert torch.equal(build_model(cfg).random_state, built.random_state)
        set_random_seed(5 + rank)
        assert np.random.random() == after
