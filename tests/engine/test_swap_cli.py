"""Putting attention into somebody's own config from the command line, pretrained weights kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.models import ResNet
from mmengine.config import Config
from mmengine.utils import get_installed_path
from safetensors.torch import save_file
from support.engine import CONFIGS, args_for_train
from support.processes import run_script

from mmse.engine import run

pytest_plugins = ('support.engine_fixtures',)
TRAIN = {
    'mmdet': Path(get_installed_path('mmdet')) / '.mim/tools/train.py',
    'mmseg': Path(get_installed_path('mmsegmentation')) / '.mim/tools/train.py',
}


@pytest.fixture(scope='module')
def plain_configs(tiny_configs: dict[str, Path], tmp_path_factory) -> dict[str, Path]:
    """What a user has: configs with plain, pretrained ResNets, and nothing of ours in the model."""
    folder = tmp_path_factory.mktemp('plain')
    torch.manual_seed(0)
    weights = ResNet(18, base_channels=8).state_dict()
    torch.save({'state_dict': weights}, folder / 'resnet18.pth')
    save_file(weights, folder / 'resnet18.safetensors')
    files = {}
    for kind, file in tiny_configs.items():
        cfg = Config.fromfile(file)
        # mmseg's ResNet has 64 channels in the stem whatever the base is.
        cfg.model.backbone.update(type='ResNet', stem_channels=8)
        del cfg.model.backbone['attention']
        checkpoint = str(folder / 'resnet18.pth')
        cfg.model.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': checkpoint}
        cfg.train_cfg = {**cfg.train_cfg, 'max_iters': 2, 'val_interval': 2}
        files[kind] = folder / f'{kind}.py'
        cfg.dump(files[kind])
    return files


def attention_keys(work_dir: Path) -> list[str]:
    weights = torch.load(work_dir / 'iter_2.pth', weights_only=False)['state_dict']
    return [key for key in weights if '.attention.' in key]


@pytest.mark.slow
@pytest.mark.parametrize(('tool', 'kind'), [('mmdet', 'det'), ('mmseg', 'seg')])
def test_one_override_in_their_own_tools(
    tool: str, kind: str, plain_configs: dict[str, Path], tmp_path: Path
) -> None:
    options = ('model.backbone.type=mmse.SEResNet', 'model.backbone.attention=sepp_v2')
    # No fork: in a process of its own nothing has imported mmse.
    done = subprocess.run(
        [sys.executable, TRAIN[tool], plain_configs[kind], '--cfg-options', *options],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'LOCAL_RANK': '0'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'identity start: the attention of 8 blocks' in done.stdout
    assert len(attention_keys(tmp_path / f'work_dirs/{kind}')) == 8 * 6


@pytest.mark.slow
def test_attention_option(plain_configs: dict[str, Path], tmp_path: Path) -> None:
    """The changes are printed, a .safetensors file is read, and --verbose names the tensors."""
    checkpoint = plain_configs['seg'].with_name('resnet18.safetensors')
    done = run_script(
        CONFIGS.parent / 'tools/train.py',
        plain_configs['seg'],
        '--attention',
        'squeeze=avg+max,residual=True',
        '--verbose',
        '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        'model.backbone.train_frozen_attention=True',
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert 'model.backbone.type: ResNet -> mmse.SEResNet\n' in done.stdout
    assert "model.backbone.attention: {'squeeze': 'avg+max', 'residual': True}\n" in done.stdout
    assert 'no weight decay on attention.alpha' in done.stdout
    assert 'identity start: the attention of 8 blocks' in done.stdout
    assert ' - DEBUG - loaded: conv1.weight, ' in done.stdout
    assert '\nnew: layer1.0.attention.' in done.stdout
    assert len(attention_keys(tmp_path / 'work_dirs/seg')) == 8 * 6
    (written,) = (tmp_path / 'work_dirs/seg').glob('*.py')
    assert Config.fromfile(written).model.backbone.train_frozen_attention is True


def test_without_a_resnet(tiny_configs, refused) -> None:
    cfg = Config.fromfile(tiny_configs['seg'])
    cfg.model.backbone = {'type': 'MobileNetV2'}
    path = tiny_configs['seg'].with_name('mobile.py')
    cfg.dump(path)
    sentence = refused(run.train, args_for_train(path, None, attention='se'))
    assert 'no backbone to swap: found model.backbone (MobileNetV2); supported: ResNet' in sentence
    sentence = refused(run.train, args_for_train(tiny_configs['seg'], None, attention='sepp_3'))
    assert "--attention: 'sepp_3' is not a preset" in sentence
