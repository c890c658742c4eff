"""A user's mistake: one sentence, exit code 2, and nothing written."""

import copy
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from support.engine import CONFIGS, SHAPES, args_for_test, args_for_train, shapes_at
from support.processes import run_script

from mmse.datasets.shapes import ensure_shapes
from mmse.engine import run
from mmse.engine.cli import exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.engine.preflight import check_learning_rates
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('empty_folder')

ROOT = CONFIGS.parent


def run_tool(tool: str, *arguments: str) -> subprocess.CompletedProcess:
    return run_script(ROOT / 'tools' / tool, *arguments, cwd=Path.cwd())


@pytest.mark.slow
def test_command_line_with_a_config_that_does_not_exist(tmp_path: Path) -> None:
    done = run_tool('train.py', str(CONFIGS / 'faster_rcnn_r50.py'))
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        f'error: {CONFIGS}/faster_rcnn_r50.py: no such config; '
        f'did you mean {CONFIGS}/faster_rcnn_se_r50.py?\n'
    )
    assert not any(Path.cwd().iterdir())


@pytest.mark.slow
def test_command_line_with_a_wrong_attention(tiny_configs: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / 'data'
    options = [
        f'{key}={value}' for key, value in shapes_at(root, True).items() if 'shapes' not in key
    ]
    done = run_tool(
        'train.py',
        str(tiny_configs['det']),
        '--cfg-options',
        'model.backbone.attention.gate=sigmod',
        *options,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and len(done.stderr.splitlines()) == 1
    assert "attention.gate: 'sigmod' is not a gate" in done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    assert not any(Path.cwd().iterdir()) and not root.exists()


WRONG_OPTIONS = {
    'a variable of the file': (
        {'attention': 'se'},
        r'attention=\.\.\. changes nothing: attention is a variable of the config file.*'
        r'override model\.backbone\.attention$',
    ),
    'a key without its place': (
        {'dataset.shapes.size': 32},
        r'changes nothing: dataset is no key: override .*train_dataloader\.dataset\.shapes\.size',
    ),
    'an unknown key': ({'nonsense': 1}, r'nonsense=\.\.\. changes nothing: nonsense is no key$'),
    'a misspelt key': (
        {'modle.backbone.depth': 34},
        r'modle\.backbone\.depth=\.\.\. changes nothing: modle is no key; did you mean model\?',
    ),
    'an entry of a list that is not there': (
        {'model.neck.in_channels.4': 1},
        r'--cfg-options do not fit .*: list assignment index out of range',
    ),
    'a key inside a number': (
        {'train_cfg.max_iters.deep': 1},
        r'--cfg-options do not fit .*max_iters',
    ),
    'a key of attention': (
        {'model.backbone.attention.gat': 'sigmoid'},
        r"attention: 'gat' is not a key of attention \(did you mean 'gate'\?\)",
    ),
    'a value of attention': (
        {'model.backbone.attention': {'_delete_': True, 'preset': 'se', 'temperature': 0}},
        r'attention\.temperature: 0 given; allowed: a finite number > 0',
    ),
    'a preset': ({'model.backbone.attention': 'see'}, r"attention: 'see' is not a preset.*'se'"),
    'attention of too few stages': (
        {'model.backbone.attention': ['se', 'se']},
        r'attention: a list of 2 given; allowed: 4 entries, one per stage',
    ),
    'attention misspelt': ({'model.backbone.atention': 'se'}, r"keyword argument 'atention'"),
    'a depth': ({'model.backbone.depth': 51}, r'SEResNet\.depth: 51 given; allowed: 18, 34, 50'),
    'a type of model': ({'model.type': 'FasterRCN'}, r'FasterRCN is not in the'),
    'a setting of the data': ({'train_dataloader.dataset.shapes.sze': 3}, r"shapes: .*'sze'"),
    'a size of the data': ({'train_dataloader.dataset.shapes.size': 3}, r'size as an integer'),
    'a type of data set': ({'train_dataloader.dataset.type': 'Coco'}, r'no dataset of type Coco'),
    'the number of classes': (
        {'model.roi_head.bbox_head.num_classes': 80},
        r'model\.roi_head\.bbox_head\.num_classes is 80, but mmse\.ShapesDetDataset has 6 '
        r'classes: set model\.roi_head\.bbox_head\.num_classes=6',
    ),
    'annotations of the metric': (
        {'val_evaluator.ann_file': 'nowhere/val.json'},
        r'val_evaluator reads nowhere/val\.json, but val_dataloader ',
    ),
    'a checkpoint to start from': ({'load_from': 'no.pth'}, r'no\.pth: no such checkpoint'),
    'a pretrained file': (
        {
            'model.backbone.init_cfg': {
                '_delete_': True,
                'type': 'Pretrained',
                'checkpoint': 'no.pth',
            }
        },
        r'no\.pth: no such checkpoint',
    ),
}


@pytest.mark.parametrize('mistake', WRONG_OPTIONS)
def test_wrong_cfg_options(
    mistake: str, tiny_configs: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    options, sentence = WRONG_OPTIONS[mistake]
    # Data that do not exist yet: the mistake has to be found before they are generated.
    data = shapes_at(tmp_path / 'data', True)
    if 'shapes' in next(iter(options)):
        data = {key: value for key, value in data.items() if not key.startswith('train')}
        data['train_dataloader.dataset.data_root'] = str(tmp_path / 'data')
    args = args_for_train(tiny_configs['det'], None, cfg_options={**data, **options})
    assert re.search(sentence, refused(run.train, args))


def test_a_setting_of_a_preset_is_one_override(tiny_configs: dict[str, Path]) -> None:
    config = str(tiny_configs['det'])
    assert load_config(config).model.backbone.attention == 'sepp_v2_residual'
    cfg = load_config(config, {'model.backbone.attention.squeeze': 'avg'})
    assert cfg.model.backbone.attention == {'preset': 'sepp_v2_residual', 'squeeze': 'avg'}
    lists = {'model.backbone.attention': ['se', None, 'se', ['sepp', 'se']]}
    cfg = load_config(config, lists)
    file = tiny_configs['det'].with_name('lists.py')
    cfg.dump(file)
    changes = {
        'model.backbone.attention.0.gate': 'hardsigmoid',
        'model.backbone.attention.1': 'se_max',
        'model.backbone.attention.3.0.reduction': 4,
    }
    assert load_config(str(file), changes).model.backbone.attention == [
        {'preset': 'se', 'gate': 'hardsigmoid'},
        'se_max',
        'se',
        [{'preset': 'sepp', 'reduction': 4}, 'se'],
    ]


def test_config_files_that_cannot_be_used(tmp_path: Path, refused: Callable[..., str]) -> None:
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    sentence = refused(run.train, args_for_train(broken, None))
    assert f'{broken} could not be read: SyntaxError' in sentence
    broken.write_text('depth = 50\nmodel = dict(depth=dept)\n')
    assert "name 'dept' is not defined" in refused(run.train, args_for_train(broken, None))
    broken.write_text("_base_ = 'nowhere.py'\n")
    assert 'nowhere.py' in refused(run.train, args_for_train(broken, None))
    broken.write_text("_base_ = 'mmdet::fcos/nowhere.py'\n")
    assert 'nowhere.py' in refused(run.train, args_for_train(broken, None))
    part = tmp_path / 'part.py'
    part.write_text('train_dataloader = dict(batch_size=2)\n')
    assert f'{part} has no model: give the config' in refused(run.train, args_for_train(part, None))
    part.write_text("model = dict(type='FasterRCNN')\n")
    assert f'{part} has no train_dataloader' in refused(run.train, args_for_train(part, None))
    assert f'{part} has no test_dataloader' in refused(run.test, args_for_test(part, 'x.pth', None))


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('nothing_like_it.py', r'nothing_like_it\.py: no such config; there are '),
        ('configs', r'configs: no such config'),
        (str(CONFIGS / 'bccd' / 'retinanet_r50_bccd.py'), r'mean .*retinanet_se_r50_bccd\.py\?'),
        (
            'mmdet::retinanet/retinanet_r50_1x_coco.py',
            r'mean mmdet::retinanet/retinanet_r50_fpn_1x_coco\.py\?',
        ),
        ('mmdet::', r'mmdet::: no such config; write mmdet::PATH'),
        ('nopackage::fcn.py', r'nopackage::fcn\.py: no such config; write mmdet::PATH or mmseg'),
    ],
)
def test_config_that_does_not_exist(name: str, sentence: str, refused: Callable[..., str]) -> None:
    Path('configs').mkdir()
    Path('configs/mine.py').touch()
    assert re.search(sentence, refused(run.train, args_for_train(name, None)))


def test_nearest_config_of_an_empty_folder(refused: Callable[..., str]) -> None:
    assert refused(run.train, args_for_train('a.py', None)) == 'error: a.py: no such config'


def test_flags_that_do_not_fit(
    tiny_configs: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    data = shapes_at(tmp_path / 'data', True)

    def sentence(**flags: Any) -> str:
        return refused(
            run.train, args_for_train(tiny_configs['det'], None, cfg_options=data, **flags)
        )

    assert '--auto-scale-lr' in sentence(auto_scale_lr=True)
    assert 'no auto_scale_lr.base_batch_size' in sentence(auto_scale_lr=True)
    assert '--launcher pytorch is for torchrun: torchrun' in sentence(launcher='pytorch')
    if not torch.cuda.is_available():
        assert '--amp needs a GPU' in sentence(amp=True)
        assert '--launcher slurm needs GPUs' in sentence(launcher='slurm')
    assert 'no.pth: no such checkpoint' in sentence(resume='no.pth')


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        ('bccd/faster_rcnn_se_r50_bccd.py', r'no data folder data/bccd.*set data_root'),
        ('camvid/fcn_se_r50_camvid.py', r'no data folder data/camvid.*set data_root'),
        (
            'coco/retinanet_se_r50_fpn_1x_coco.py',
            r'no data folder data/coco; get the data: mim download mmdet --dataset coco2017',
        ),
        (
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
            r'no data folder data/coco; get the data: mim download mmdet --dataset coco2017',
        ),
        ('ade20k/fcn_se_r50-d8_4xb4-160k_ade20k-512x512.py', r'no data folder data/ade'),
        ('cityscapes/fcn_se_r50-d8_4xb2-80k_cityscapes-512x1024.py', r'data/cityscapes.*prepared'),
    ],
)
def test_data_folder_is_missing(config: str, sentence: str, refused: Callable[..., str]) -> None:
    name = config if '::' in config else CONFIGS / config
    assert re.search(sentence, refused(run.train, args_for_train(name, None)))


def test_data_folder_without_the_data(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    folder = {
        f'{split}_dataloader.dataset.data_root': str(tmp_path / 'empty')
        for split in ('train', 'val', 'test')
    }
    detection = CONFIGS / 'bccd/faster_rcnn_se_r50_bccd.py'
    files = {
        f'{split}_evaluator.ann_file': f'{tmp_path}/empty/annotations/instances_{split}.json'
        for split in ('val', 'test')
    }
    sentence = refused(run.train, args_for_train(detection, None, cfg_options=folder | files))
    assert 'instances_train.json cannot be read' in sentence
    segmentation = CONFIGS / 'camvid/fcn_se_r50_camvid.py'
    sentence = refused(run.train, args_for_train(segmentation, None, cfg_options=folder))
    assert 'train_dataloader.dataset: the data set cannot be read' in sentence
    assert 'img_dir/train' in sentence


def test_foreign_folder_at_the_place_of_the_built_in_data(
    tiny_configs: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    root = tmp_path / 'data'
    root.mkdir()
    (root / 'thesis.txt').write_text('mine')
    data = shapes_at(root, True)
    sentence = refused(run.train, args_for_train(tiny_configs['det'], None, cfg_options=data))
    assert f'{root} exists and is no shapes data set of mmse' in sentence
    # The same folder with other settings: what is there is not replaced either.
    ensure_shapes(tmp_path / 'other', **SHAPES)
    data = shapes_at(tmp_path / 'other', True)
    data['train_dataloader.dataset.shapes'] = {'size': 64, 'num_train': 9, 'num_val': 4}
    sentence = refused(run.train, args_for_train(tiny_configs['det'], None, cfg_options=data))
    assert 'holds other data (num_train 8 instead of 9)' in sentence


def test_own_warnings_are_shown(
    tiny_configs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """A setting without effect is said; what the libraries warn of is not."""
    options = {
        **shapes_at(tmp_path / 'data', True),
        'model.backbone.attention': {'_delete_': True, 'squeeze': 'avg', 'fusion': 'sum'},
        'load_from': 'no.pth',
    }

    def command() -> None:
        warnings.warn_explicit('a library says', UserWarning, 'mmengine/library.py', 1)
        run.train(args_for_train(tiny_configs['det'], None, cfg_options=options))

    capfd.readouterr()
    with pytest.raises(SystemExit):
        exit_with_one_sentence(command)
    warning, error = capfd.readouterr().err.splitlines()
    assert warning.startswith('warning: attention: without effect and dropped: fusion (')
    assert error == 'error: no.pth: no such checkpoint'


def test_interrupted_run_says_that_it_stopped(capfd: pytest.CaptureFixture) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        exit_with_one_sentence(interrupted)
    assert caught.value.code == 130
    assert capfd.readouterr().err == 'stopped\n'


CYCLE = {'type': 'OneCycleLR', 'eta_max': 0.1, 'by_epoch': False}


@pytest.mark.parametrize(
    ('paramwise', 'place'),
    [
        ({'custom_keys': {'backbone': {'lr_mult': 0.1}}}, 'custom_keys.backbone.lr_mult=0.1'),
        ({'bias_lr_mult': 2.0}, 'bias_lr_mult=2.0'),
        ({'num_layers': 4, 'decay_rate': 0.7}, 'decay_rate=0.7'),
        ({'norm_decay_mult': 0.5}, None),
        ({'norm_decay_mult': 0.0, 'custom_keys': {'head': {'lr_mult': 1}}}, None),
    ],
)
def test_factors_of_the_learning_rate_beside_one_cycle(
    paramwise: dict[str, Any], place: str | None
) -> None:
    """MMEngine's schedulers, stepped: one cycle loses the factors, the others keep them."""
    model = torch.nn.ModuleDict({'backbone': torch.nn.Linear(1, 1), 'head': torch.nn.Linear(1, 1)})
    optimizer = {'type': 'SGD', 'lr': 0.1, 'weight_decay': 1e-4}
    wrapper = {'optimizer': optimizer, 'paramwise_cfg': paramwise}
    cosine = {'type': 'CosineAnnealingLR', 'T_max': 8, 'by_epoch': False}
    if 'decay_rate' not in paramwise:
        for schedule, kept in (({**CYCLE, 'total_steps': 8}, False), (cosine, True)):
            built = build_optim_wrapper(model, copy.deepcopy(wrapper))
            PARAM_SCHEDULERS.build({**schedule, 'optimizer': built, 'end': 8})
            rates = {group['lr'] for group in built.param_groups}
            assert (len(rates) > 1) is (kept and place is not None)
    check_learning_rates(Config({'optim_wrapper': wrapper, 'param_scheduler': cosine}))
    several = {**CYCLE, 'eta_max': [0.1, 0.01]}
    check_learning_rates(Config({'optim_wrapper': wrapper, 'param_scheduler': several}))
    momentum = {**CYCLE, 'type': 'OneCycleParamScheduler', 'param_name': 'momentum'}
    check_learning_rates(Config({'optim_wrapper': wrapper, 'param_scheduler': momentum}))
    # Alone, in a list, and by the name of what it derives from.
    for schedule in (CYCLE, [cosine, CYCLE], {**momentum, 'param_name': 'lr'}):
        cfg = Config({'optim_wrapper': wrapper, 'param_scheduler': schedule})
        if place is None:
            check_learning_rates(cfg)
            continue
        message = re.escape(f'paramwise_cfg.{place} has no effect beside')
        with pytest.raises(UserError, match=message):
            check_learning_rates(cfg)
