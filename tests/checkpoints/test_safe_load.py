"""Checkpoints: MMEngine's own load whole and safely, everything else is refused by name."""

import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmse.checkpoints import allow_mmengine_globals, read_checkpoint
from mmse.models import SEResNet
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)

SCALARS = [np.dtype(char).type(3) for char in np.typecodes['AllInteger'] + 'efd'] + [np.bool_(True)]
ONE_CYCLE = {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 6, 'by_epoch': False}


class Toy(BaseModel):
    """The smallest model that a Runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return {'loss': self.linear(inputs).square().mean()}


def train_toy(work_dir: Path, resume_from: Path | None = None, **scheduler: Any) -> Runner:
    """Train for six iterations, with a checkpoint after the fourth and the last."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    runner = Runner(
        Toy(),
        str(work_dir),
        train_dataloader=DataLoader(
            [{'inputs': torch.randn(3, generator=generator)} for _ in range(12)], batch_size=2
        ),
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 6},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
        param_scheduler=[{**ONE_CYCLE, **scheduler}, {'type': 'MultiStepLR', 'milestones': [4]}],
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 4}},
        log_processor={'by_epoch': False},
        resume=resume_from is not None,
        load_from=resume_from and str(resume_from),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
    )
    for scalar in SCALARS:
        runner.message_hub.update_info(f'scalar_{scalar.dtype.char}', scalar)
    runner.message_hub.update_info('array', np.arange(6.0).reshape(2, 3)[:, ::2])
    runner.train()
    return runner


def assert_equal(left: Any, right: Any, place: str = '') -> None:
    assert type(left) is type(right), place
    if isinstance(left, dict):
        assert list(left) == list(right), place
        for key in left:
            assert_equal(left[key], right[key], f'{place}.{key}')
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), place
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_equal(*pair, f'{place}.{i}')
    elif isinstance(left, Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right), place
    elif isinstance(left, np.ndarray | np.generic):
        assert left.dtype == right.dtype and np.array_equal(left, right), place
    elif isinstance(left, HistoryBuffer):
        assert_equal(list(left.data), list(right.data), place)
        for name in ('min', 'max', 'current', 'mean'):
            assert left.statistics(name) == right.statistics(name), f'{place} {name}'
    else:
        assert left == right, place


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_checkpoints_of_mmengine_load_whole(
    strategy: str, tmp_path: Path, no_env_report: None
) -> None:
    train_toy(tmp_path, anneal_strategy=strategy)
    for name in ('iter_4.pth', 'iter_6.pth'):
        # Written by this test, so that trusting it is safe: the reference.
        trusted = torch.load(tmp_path / name, weights_only=False)
        loaded = read_checkpoint(tmp_path / name)
        assert_equal(loaded, trusted)
        info = loaded['message_hub']['runtime_info']
        assert [info[f'scalar_{s.dtype.char}'] for s in SCALARS] == SCALARS
        assert loaded['message_hub']['log_scalars']['train/loss'].data[0].shape == (int(name[5]),)
        assert len(loaded['param_schedulers']) == 2


def test_torch_itself_accepts_what_mmengine_writes(tmp_path: Path, no_env_report: None) -> None:
    """For programs that call ``torch.load`` themselves."""
    train_toy(tmp_path)
    allow_mmengine_globals()
    loaded = torch.load(tmp_path / 'iter_6.pth')
    assert_equal(loaded, torch.load(tmp_path / 'iter_6.pth', weights_only=False))


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_mmengine_resumes_from_its_checkpoint(
    strategy: str, tmp_path: Path, no_env_report: None
) -> None:
    whole = train_toy(tmp_path / 'whole', anneal_strategy=strategy)
    parts = train_toy(
        tmp_path / 'parts', tmp_path / 'whole' / 'iter_4.pth', anneal_strategy=strategy
    )
    assert parts.iter == 6
    for scalar in ('train/loss', 'train/lr'):
        losses = [r.message_hub.get_scalar(scalar).data[0] for r in (whole, parts)]
        assert np.array_equal(*losses) and len(losses[0]) == 6
    assert_equal(dict(whole.model.state_dict()), dict(parts.model.state_dict()))


class Evil:
    """An object that calls ``function`` with ``arguments`` when it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def evil_objects(mark: Path) -> dict[str, tuple[Any, str]]:
    """Objects that would write ``mark``, each with the name that the sentence has to have."""
    run = f'touch {mark}'
    globals_of_init = Evil(getattr, Evil(getattr, HistoryBuffer, '__init__'), '__globals__')
    return {
        'os.system': (Evil(os.system, run), 'posix.system'),
        'open': (Evil(open, str(mark), 'w'), 'open'),
        'eval': (Evil(eval, f'open({str(mark)!r}, "w")'), 'eval'),
        'mkdir': (Evil(os.makedirs, str(mark)), 'os.makedirs'),
        'pickle.loads': (Evil(pickle.loads, pickle.dumps(Evil(os.system, run))), 'pickle.loads'),
        'getattr of os': (Evil(Evil(getattr, os, 'system'), run), 'system'),
        'getattr of a class': (Evil(getattr, HistoryBuffer, '__init__'), 'HistoryBuffer.__init__'),
        'globals of __init__': (globals_of_init, 'HistoryBuffer.__init__'),
        'register_statistics': (
            Evil(getattr, HistoryBuffer, 'register_statistics'),
            'HistoryBuffer.register_statistics',
        ),
        'getattr of plain data': (Evil(getattr, 'text', 'join'), 'str.join'),
        'getattr of a dict': (Evil(getattr, {}, 'get'), 'dict.get'),
        'a call of a reachable function': (
            Evil(HistoryBuffer.mean, HistoryBuffer()),
            'HistoryBuffer.mean',
        ),
        'a class of ours': (Toy(), 'Toy'),
    }


@pytest.mark.parametrize('name', evil_objects(Path()))
def test_anything_else_is_refused_by_name(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / 'mark', tmp_path / 'evil.pth'
    evil, named = evil_objects(mark)[name]
    if name == 'getattr of os':  # a module cannot be pickled: write the opcodes by hand
        content = (
            b'\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nX\x02\x00\x00\x00os\x85R'
            b'X\x06\x00\x00\x00system\x86RX\x05\x00\x00\x00touch\x85R.'
        )
        named = '__import__'
        archive = torch._C.PyTorchFileWriter(str(path))
        archive.write_record('data.pkl', content, len(content))
        archive.write_end_of_file()
    else:
        torch.save({'state_dict': {'w': torch.zeros(1)}, 'meta': evil}, path)
    before = HistoryBuffer._statistics_methods.copy()  # shared by all buffers of the process
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    sentence = str(caught.value)
    assert str(path) in sentence and named in sentence and 'is refused' in sentence
    assert '\n' not in sentence
    assert not mark.exists()
    assert HistoryBuffer._statistics_methods == before


def test_evil_objects_would_run_without_the_allow_list(tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    torch.save(evil_objects(mark)['os.system'][0], tmp_path / 'evil.pth')
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert mark.exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    good, damaged = tmp_path / 'good.pth', tmp_path / 'damaged.pth'
    torch.save({'state_dict': {'w': torch.randn(64, 64)}, 'meta': {'iter': 3}}, good)
    whole = good.read_bytes()
    contents = [b'', b'no checkpoint\n', b'\x80', b'\x80\x02.', pickle.dumps([1, 2])]
    contents += [whole[: len(whole) * k // 8] for k in range(1, 8)]
    contents += [whole[:40] + bytes(200) + whole[240:]]
    for content in contents:
        damaged.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_checkpoint(damaged)
        assert str(damaged) in str(caught.value) and '\n' not in str(caught.value)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'x.pth'
    with pytest.raises(UserError, match=r'x\.pth: no such checkpoint'):
        read_checkpoint(path)
    with pytest.raises(UserError, match='no such checkpoint'):
        read_checkpoint(tmp_path)
    torch.save(torch.zeros(2), path)
    with pytest.raises(UserError, match=r'x\.pth holds a Tensor, not a dict'):
        read_checkpoint(path)
    torch.save([{'state_dict': {}}], path)
    with pytest.raises(UserError, match=r'x\.pth holds a list, not a dict'):
        read_checkpoint(path)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / 'weights.safetensors'
    weights = {'b': torch.arange(3), 'w': torch.randn(3, 2)}
    save_file(weights, path)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        assert_equal(dict(sorted(read(str(path)).items())), weights)
    path.write_bytes(path.read_bytes()[:-4])
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=r'weights\.safetensors is damaged'):
            read(str(path))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the URL of a server on 127.0.0.1 that hands out what is in it."""
    folder = tmp_path / 'served'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    server = HTTPServer(('127.0.0.1', 0), partial(SimpleHTTPRequestHandler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    thread.join()
    server.server_close()


def init_backbone(url: str, work_dir: Path) -> None:
    SEResNet(18, init_cfg={'type': 'Pretrained', 'checkpoint': url}).init_weights()


def load_in_runner(url: str, work_dir: Path, resume: bool = False) -> None:
    Runner(Toy(), str(work_dir), load_from=url, resume=resume).load_or_resume()


LOADERS = {
    'CheckpointLoader': lambda url, work_dir: CheckpointLoader.load_checkpoint(url),
    'init_cfg': init_backbone,
    'load_from': load_in_runner,
    'resume': partial(load_in_runner, resume=True),
}


@pytest.mark.parametrize('name', LOADERS)
def test_hostile_files_are_refused_when_they_come_from_a_url(
    name: str, tmp_path: Path, served: tuple[Path, str], no_env_report: None
) -> None:
    folder, url = served
    mark = tmp_path / 'mark'
    evil = evil_objects(mark)['os.system'][0]
    torch.save({'state_dict': {'w': torch.zeros(1)}, 'meta': evil}, folder / 'evil.pth')
    for _ in range(2):  # downloaded, and from the folder that downloads are kept in
        with pytest.raises(UserError, match=r'evil\.pth carries posix\.system.* is refused'):
            LOADERS[name](f'{url}/evil.pth', tmp_path / 'work')
    assert not mark.exists()


@pytest.fixture
def schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, behind every scheme of MMEngine that is no URL and no plain file."""

    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        def download(self, target: str) -> None:
            shutil.copy(tmp_path / self.name, target)

    class Bucket:
        def get(self, path: str) -> bytes:
            return (tmp_path / path.rpartition('/')[2]).read_bytes()

    pavi = ModuleType('pavi')
    pavi.modelcloud = SimpleNamespace(get=Model)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'pavi', pavi)
    checkpoint = 'mmengine.runner.checkpoint'
    monkeypatch.setattr(f'{checkpoint}.get_file_backend', lambda *_, **__: Bucket())
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text('{"evil": "evil.pth", "good": "good.pth"}')
    return tmp_path


@pytest.mark.parametrize(
    'scheme',
    ['pavi://', 's3://bucket/', 'petrel://bucket/', 'open-mmlab:s3://bucket/', 'open-mmlab://', ''],
)
def test_hostile_files_are_refused_behind_every_scheme(scheme: str, schemes: Path) -> None:
    mark = schemes / 'mark'
    evil = evil_objects(mark)['os.system'][0]
    weights = {'w': torch.ones(1)}
    torch.save({'state_dict': weights, 'meta': evil}, schemes / 'evil.pth')
    torch.save({'state_dict': weights}, schemes / 'good.pth')
    ending = '' if scheme == 'open-mmlab://' else '.pth'
    prefix = scheme or f'{schemes}/'
    with pytest.raises(UserError, match=r'carries posix\.system.* is refused'):
        CheckpointLoader.load_checkpoint(f'{prefix}evil{ending}')
    assert not mark.exists()
    good = CheckpointLoader.load_checkpoint(f'{prefix}good{ending}', map_location='cpu')
    assert_equal(good, {'state_dict': weights})


def test_no_scheme_of_mmengine_is_forgotten() -> None:
    """A new one would read with a function that these tests do not know."""
    assert set(CheckpointLoader._schemes) == {
        *('', 'http://', 'https://', 'pavi://', 'modelzoo://', 'torchvision://', 'mmcls://'),
        *('open-mmlab://', 'openmmlab://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
    }


def test_checkpoints_from_a_url_load_whole(
    tmp_path: Path, served: tuple[Path, str], no_env_report: None
) -> None:
    folder, url = served
    runner = train_toy(folder)
    loaded = CheckpointLoader.load_checkpoint(f'{url}/iter_6.pth', map_location='cpu')
    assert_equal(loaded, torch.load(folder / 'iter_6.pth', weights_only=False))
    save_file(runner.model.state_dict(), folder / 'toy.safetensors')
    loaded = CheckpointLoader.load_checkpoint(f'{url}/toy.safetensors')
    assert_equal(dict(sorted(loaded.items())), dict(sorted(runner.model.state_dict().items())))
    with pytest.raises(UserError, match=r'none\.pth cannot be downloaded: HTTP Error 404'):
        CheckpointLoader.load_checkpoint(f'{url}/none.pth')
