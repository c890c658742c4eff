"""How runs end: broken losses, nothing left to train, nothing found, and interruptions."""

import argparse
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from support.engine import IN_PROCESS, args_for_test, args_for_train, shapes_at
from support.processes import in_process
from support.trained import Trained
from torch import Tensor, nn

from mmse.datasets.shapes import SEG_CLASSES, SEG_PALETTE
from mmse.engine import run
from mmse.engine.cli import exit_with_one_sentence
from mmse.hooks import FiniteLossHook
from mmse.utils.errors import UserError

pytest_plugins = ('support.trained',)
pytestmark = pytest.mark.usefixtures('fresh_logger', 'no_env_report')


class Line(BaseModel):
    """One weight; its loss is NaN or infinite for chosen inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs: list[Tensor], mode: str = 'tensor') -> dict[str, Tensor]:
        return {'loss_line': self.weight * sum(inputs), 'acc': sum(inputs)}


def runner_of(values: list[float], folder: Path) -> Runner:
    data = [{'inputs': torch.tensor(value)} for value in values]
    loader = {
        'dataset': data,
        'batch_size': 1,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }
    runner = Runner(
        Line(),
        str(folder),
        train_dataloader=loader,
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.25}},
    )
    runner.register_hook(FiniteLossHook())
    return runner


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_ends_the_run(value: float, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        runner_of([1.0, 2.0, value, 1.0], tmp_path).train()
    sentence = str(caught.value)
    assert f'not finite at iteration 3 (loss_line={value:g}): look for labels' in sentence
    assert 'learning rate (it is 0.25) or optim_wrapper.clip_grad' in sentence
    assert not list(tmp_path.glob('*.pth'))  # the checkpoint of the epoch's end is not written


def test_a_finite_loss_goes_on(tmp_path: Path) -> None:
    runner = runner_of([1.0, -2.0, 1e30], tmp_path)
    runner.train()
    assert runner.iter == 3 and (tmp_path / 'epoch_1.pth').is_file()


class Normed(Line):
    """Beside its weight it has a running statistic, which an overflow would break."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('running_mean', torch.zeros(()))
        self.register_buffer('mask', torch.tensor(-math.inf))


@pytest.mark.parametrize(
    ('losses', 'statistic', 'ends_at'),
    [
        ([1.0, math.inf, 1.0], 0.0, None),  # one step is skipped
        ([1.0, math.inf, 1.0], math.nan, 2),  # but the statistics took the batch
        ([math.nan] * 150, 0.0, 100),
        (([math.nan] * 99 + [1.0]) * 2, 0.0, None),
    ],
)
def test_in_mixed_precision(losses: list[float], statistic: float, ends_at: int | None) -> None:
    model = Normed()
    model.running_mean.fill_(statistic)
    hook = FiniteLossHook()
    wrapper = SimpleNamespace(loss_scaler=None, get_lr=lambda: {'lr': [0.1]})
    runner = SimpleNamespace(optim_wrapper=wrapper, model=model, iter=0)
    ended = None
    for runner.iter, loss in enumerate(losses):
        if runner.iter % 7 == 0:
            hook.before_save_checkpoint(runner, {})
        try:
            hook.after_train_iter(runner, runner.iter, outputs={'loss': torch.tensor(loss)})
        except UserError:
            ended = runner.iter + 1
            break
    assert ended == ends_at


def test_working_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    for folder, sentence in (
        (tmp_path / ('x' * 300), r'a name may have 255 bytes, x{40}\.\.\. has 300; give a shorter'),
        (tmp_path / 'file/run', r'/file is a file, not a folder'),
    ):
        with pytest.raises(UserError, match=f'^--work-dir .*{sentence}'):
            run.check_writable(folder, '--work-dir')
    run.check_writable(tmp_path / 'new/run', '--work-dir')
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('checkpoint', [None, 'work/iter_3.pth'])
def test_resume_is_offered_where_there_is_a_checkpoint(
    checkpoint: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Interrupted:
        def register_hook(self, hook: Any) -> None:
            pass

        def train(self) -> None:
            raise KeyboardInterrupt

    args = argparse.Namespace(amp=False, auto_scale_lr=False, resume=None)
    cfg = argparse.Namespace(work_dir='work', get=lambda key: None)
    monkeypatch.setattr(run, 'prepare', lambda args, split: cfg)
    monkeypatch.setattr(run, 'preflight', lambda *_, **__: None)
    monkeypatch.setattr(run, 'build_runner', lambda *_: Interrupted())
    monkeypatch.setattr(run, 'latest_checkpoint', lambda folder: checkpoint)
    with pytest.raises(SystemExit) as caught:
        exit_with_one_sentence(lambda: run.train(args))
    assert caught.value.code == 130
    said = capfd.readouterr().err.strip()
    assert said == (
        f'stopped; --resume goes on from {checkpoint}'
        if checkpoint
        else 'stopped before the first checkpoint'
    )


@pytest.mark.slow
def test_resuming_what_is_done_says_so(
    trained: Callable[[str], Trained], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = trained('seg')
    args = args_for_train(model.config, tmp_path / 'work', resume=str(model.checkpoint))
    capfd.readouterr()
    run.train(args)
    said = ' '.join(capfd.readouterr()).split()
    sentence = (
        f'Nothing was trained: {model.checkpoint} has all of train_cfg.max_iters=8 behind it.'
    )
    assert sentence in ' '.join(said)
    assert 'Training is done.' not in ' '.join(said)


@pytest.mark.slow
def test_a_test_without_a_detection_says_so(
    trained: Callable[[str], Trained], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = trained('det')
    options = {'model.test_cfg.rcnn.score_thr': 1.0}
    run.test(args_for_test(model.config, model.checkpoint, tmp_path, cfg_options=options))
    assert 'There is no metric: the model found nothing' in ' '.join(capfd.readouterr())


@pytest.mark.slow
def test_predictions_that_are_only_written(
    trained: Callable[[str], Trained], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = trained('det')
    options = {'test_evaluator.format_only': True, 'test_evaluator.outfile_prefix': f'{tmp_path}/p'}
    run.test(args_for_test(model.config, model.checkpoint, tmp_path / 'w', cfg_options=options))
    assert f'predictions, not measured: {tmp_path}/p.bbox.json' in ' '.join(capfd.readouterr())
    assert (tmp_path / 'p.bbox.json').is_file()


@pytest.mark.slow
def test_a_checkpoint_knows_its_classes(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    model = trained('seg')
    names = SEG_CLASSES
    swapped = (*names[:-2], names[-1], names[-2])
    options = {f'{s}_dataloader.dataset.metainfo': {'classes': swapped} for s in ('test', 'train')}
    listed = ', '.join(names)
    with pytest.raises(UserError) as caught:
        run.test(args_for_test(model.config, model.checkpoint, tmp_path, cfg_options=options))
    assert f'{model.checkpoint} was trained on the classes {listed}; the test data have' in str(
        caught.value
    )
    assert str(caught.value).endswith(f'{names[-2]}: give data with the same classes in that order')
    resumed = args_for_train(
        model.config, tmp_path / 'w', cfg_options=options, resume=str(model.checkpoint)
    )
    with pytest.raises(UserError, match=r'the train data have background.* in that order'):
        run.train(resumed)
    # Fine-tuning on other names is what load_from is for.
    run.preflight(
        run.load_config(str(model.config), {**options, 'load_from': str(model.checkpoint)}),
        ('train',),
        whole_checkpoint=False,
    )


@pytest.mark.slow
def test_pictures_of_equal_names(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    model = trained('seg')
    root, images = tmp_path / 'data', sorted(model.images.iterdir())[:2]
    for k, image in enumerate(images):
        labels = next((model.images.parent / 'semantic/val').glob(f'{image.stem}.*'))
        for kind, file in (('images', image), ('labels', labels)):
            (root / kind / f'cam{k}').mkdir(parents=True)
            (root / kind / f'cam{k}' / f'0001{file.suffix}').write_bytes(file.read_bytes())
    dataset = {
        'type': 'mmseg.BaseSegDataset',
        'data_root': str(root),
        'img_suffix': images[0].suffix,
    }
    dataset |= {'data_prefix': {'img_path': 'images', 'seg_map_path': 'labels'}}
    options: dict[str, Any] = {f'test_dataloader.dataset.{k}': v for k, v in dataset.items()}
    cfg = run.load_config(str(model.config))
    cfg.test_dataloader.dataset.pop('shapes')
    cfg.test_dataloader.dataset.metainfo = {'classes': SEG_CLASSES, 'palette': SEG_PALETTE}
    cfg.merge_from_dict(options)
    cfg.dump(tmp_path / 'two.py')
    shown = tmp_path / 'shown'
    args = args_for_test(tmp_path / 'two.py', model.checkpoint, tmp_path / 'w', show_dir=str(shown))
    run.test(args)
    assert {str(p.relative_to(shown)) for p in shown.rglob('*.png')} == {
        'cam0/0001.png',
        'cam1/0001.png',
    }


def train_as_one_of_its_processes(args: argparse.Namespace) -> None:
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    os.environ |= {'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1'}
    os.environ |= {'MASTER_ADDR': 'localhost', 'MASTER_PORT': str(port)}
    run.train(args)


@pytest.mark.slow
def test_synchronized_batch_norm_is_plain_on_cpus(
    tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    options = {**IN_PROCESS, **shapes_at(tmp_path / 'shapes', False)}
    norms = ('backbone', 'decode_head', 'auxiliary_head')
    options |= {
        f'model.{part}.norm_cfg': {'type': 'SyncBN', 'requires_grad': True} for part in norms
    }
    args = args_for_train(tiny_configs['seg'], tmp_path / 'w', cfg_options=options)
    args.launcher = 'pytorch'
    assert in_process(train_as_one_of_its_processes, args) == 0
    assert (tmp_path / 'w/iter_8.pth').is_file()
