"""Hostile checkpoint files: none of their code runs, each is refused in one sentence.

The pickles are assembled from instructions, because no honest program writes them. Every payload
would create the file ``mark``, or change something that is looked at afterwards.
"""

import io
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmse.checkpoints import read_checkpoint
from mmse.utils.errors import UserError

START = b'\x80\x02'


def text(value: str) -> bytes:
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def named(module: str, name: str) -> bytes:
    return b'c' + f'{module}\n{name}\n'.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(key: str = '0', size: int = 1, kind: str = 'FloatStorage') -> bytes:
    parts = text('storage') + named('torch', kind) + text(key) + text('cpu') + number(size)
    return b'(' + parts + b'tQ'


def tensor(offset: int, shape: bytes, stride: bytes, size: int = 1, hooks: bytes = b'') -> bytes:
    hooks = hooks or named('collections', 'OrderedDict') + b')R'
    return (
        named('torch._utils', '_rebuild_tensor_v2')
        + (b'(' + storage(size=size) + number(offset) + shape + stride + b'\x89' + hooks + b't')
        + b'R'
    )


def weights(more: bytes = b'') -> bytes:
    """A pickled dict with one good tensor, and what ``more`` leaves on the stack beside it."""
    good = text('w') + tensor(0, b'K\x01\x85', b'K\x01\x85')
    return START + b'}(' + good + (text('meta') + more if more else b'') + b'u.'


ORDERED = named('collections', 'OrderedDict') + b')R'
BUFFER = named('mmengine.logging.history_buffer', 'HistoryBuffer')
GETATTR = named('builtins', 'getattr')
ARRAY = (
    named('numpy.core.multiarray', '_reconstruct')
    + (b'(' + named('numpy', 'ndarray') + b'K\x00\x85' + b'C\x01b' + b't')
    + b'R'
)
DTYPE = named('numpy', 'dtype') + b'(' + text('f8') + b'\x89\x88tR'


def pickles(mark: Path) -> dict[str, bytes]:
    """Hostile values of a checkpoint's ``meta``."""
    touch = text(f'touch {mark}')
    system, run = named('os', 'system'), b'(' + touch + b't'
    raw = f'touch {mark}'.encode()
    namespace = named('argparse', 'Namespace') + b')\x81'
    evil = START + system + run + b'R.'
    mean = GETATTR + b'(' + BUFFER + text('mean') + b'tR'
    empty = b'(lp0\n'
    return {
        # instructions that call
        'REDUCE': system + run + b'R',
        'a name of several lines': text('os\n\x1b[2J' * 99)
        + text('system\n')
        + b'\x93'
        + run
        + b'R',
        'REDUCE of STACK_GLOBAL': text('os') + text('system') + b'\x93' + run + b'R',
        'REDUCE with a list for arguments': system + b'](' + touch + b'eR',
        'REDUCE of a reachable function': mean + b')R',
        'REDUCE of a class': BUFFER + b')R',
        'REDUCE of a REDUCE': GETATTR + b'(' + named('os', 'path') + text('x') + b'tR' + b')R',
        'nested REDUCE through getattr': (
            GETATTR
            + b'('
            + GETATTR
            + b'('
            + BUFFER
            + text('__init__')
            + b'tR'
            + text('__globals__')
            + b'tR'
        ),
        'getattr of getattr': GETATTR + b'(' + GETATTR + text('function') + b'tR',
        'getattr of a stand-in': GETATTR + b'(' + ORDERED + text('__class__') + b'tR',
        'NEWOBJ': named('subprocess', 'Popen') + run + b'\x81',
        'NEWOBJ of an allowed class with arguments': BUFFER + b'K\x01\x85\x81',
        'NEWOBJ of a function': system + run + b'\x81',
        'NEWOBJ_EX': named('subprocess', 'Popen') + run + b'}\x92',
        'INST': b'(' + touch + b'ios\nsystem\n',
        'OBJ': b'(' + system + touch + b'o',
        'EXT1': b'\x82\x01',
        'EXT2': b'\x83\x01\x00',
        'EXT4': b'\x84\x01\x00\x00\x00',
        'PERSID': b'Pstorage\n',
        'NEXT_BUFFER': b'\x97',
        'READONLY_BUFFER': b'C\x01b\x98',
        'a text instruction': b'I99\n',
        'LIST of protocol 0': empty,
        # names
        'GLOBAL of a submodule': named('torch', 'hub.load'),
        'GLOBAL of a private module': named('torch.storage', '_load_from_bytes')
        + b'C'
        + bytes([len(evil)])
        + evil
        + b'\x85R'
        if len(evil) < 256
        else system + run + b'R',
        'GLOBAL eval': named('__builtin__', 'eval')
        + b'('
        + text(f'open({str(mark)!r},"w")')
        + b'tR',
        'GLOBAL of MMEngine': named('mmengine.utils', 'check_file_exist') + b'(' + touch + b'tR',
        'GLOBAL of numpy': named('numpy', 'fromfile') + b'(' + touch + b'tR',
        'GLOBAL of codecs': named('_codecs', 'encode') + b'(' + text('x') + text('rot13') + b'tR',
        # states
        'BUILD on an OrderedDict': ORDERED + b'}' + text('items') + mean + b'sb',
        'BUILD beside _metadata': (
            ORDERED + b'}(' + text('_metadata') + b'}' + text('keys') + mean + b'ub'
        ),
        'BUILD on a HistoryBuffer': BUFFER + b')\x81}' + text('__class__') + system + b'sb',
        'BUILD that swaps statistics': (
            BUFFER
            + b')\x81}('
            + text('max_length')
            + b'K\x05'
            + text('_log_history')
            + ARRAY
            + text('_count_history')
            + ARRAY
            + text('statistics_methods')
            + b'}'
            + text('min')
            + GETATTR
            + b'('
            + BUFFER
            + text('max')
            + b'tRsub'
        ),
        'BUILD on a class': BUFFER + b'}' + text('mean') + b'K\x01sb',
        'BUILD on a tensor': tensor(0, b'K\x01\x85', b'K\x01\x85') + b'}' + text('a') + b'K\x01sb',
        'BUILD on a stand-in': GETATTR + b'}' + text('function') + system + b'sb',
        'BUILD with slots': ORDERED + b'N}' + text('x') + b'K\x01s\x86b',
        'BUILD of a dunder': namespace + b'}' + text('__reduce_ex__') + mean + b'sb',
        'BUILD of an array of objects': (
            ARRAY
            + b'(K\x01K\x01\x85'
            + named('numpy', 'dtype')
            + b'('
            + text('O8')
            + b'\x89\x88tR'
            + b'\x89]('
            + system
            + b'etb'
        ),
        'BUILD of an array that lies': ARRAY
        + b'(K\x01J\xff\xff\xff\x7f\x85'
        + DTYPE
        + b'\x89C\x00tb',
        'BUILD of a dtype with fields': DTYPE
        + b'(K\x03'
        + text('|')
        + b'N'
        + text('x')
        + b'}K\x08K\x01K\x10tb',
        # containers that call their methods
        'APPEND to no list': namespace + b'K\x01a',
        'APPENDS to no list': GETATTR + b'(K\x01e',
        'SETITEM of no dict': GETATTR + text('x') + b'K\x01s',
        'SETITEMS of an array': ARRAY + b'(K\x00K\x01u',
        'ADDITEMS to no set': b'](K\x01\x90',
        # tensors and storages
        'hooks of a tensor': tensor(
            0, b'K\x01\x85', b'K\x01\x85', hooks=ORDERED + b'K\x01' + mean + b's'
        ),
        'a tensor beyond its storage': tensor(0, b'K\x09\x85', b'K\x01\x85'),
        'a tensor at an offset': tensor(9, b'K\x01\x85', b'K\x01\x85'),
        'a negative stride': tensor(0, b'K\x02\x85', b'J\xff\xff\xff\xff\x85'),
        'a tensor of 10**18 numbers': tensor(
            0, number(10**9) + number(10**9) + b'\x86', number(10**9) + b'K\x01\x86'
        ),
        'a storage of 16 TB': tensor(0, b'K\x01\x85', b'K\x01\x85', size=2**42),
        'a storage that is not there': storage('7'),
        'a persistent id of a module': b'(' + text('module') + system + touch + touch + b'tQ',
        'a persistent id that is a name': text('0') + b'Q',
        'a storage of a class of mine': b'('
        + text('storage')
        + system
        + text('0')
        + text('cpu')
        + b'K\x01tQ',
        'an array of 8 TB': (
            named('numpy.core.multiarray', '_reconstruct')
            + b'('
            + named('numpy', 'ndarray')
            + number(2**40)
            + b'\x85C\x01btR'
        ),
        'a bytearray of 8 TB': named('builtins', 'bytearray') + number(2**43) + b'\x85R',
        'bytes of 8 TB': named('builtins', 'bytes') + number(2**43) + b'\x85R',
        'an unusual byte string': b'T' + struct.pack('<i', len(raw)) + raw + b')R',
    }


def write_zip(path: Path, content: bytes, records: dict[str, bytes] | None = None) -> Path:
    """An archive like those of ``torch.save``, around a pickle of ours."""
    archive = torch._C.PyTorchFileWriter(str(path))
    for name, data in {'data.pkl': content, 'data/0': bytes(4), **(records or {})}.items():
        archive.write_record(name, data, len(data))
    archive.write_end_of_file()
    return path


def assert_refused(path: Path, mark: Path) -> str:
    statistics = HistoryBuffer._statistics_methods.copy()
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert not mark.exists()
    assert HistoryBuffer._statistics_methods == statistics
    assert np.dtype('f8').fields is None
    sentence = str(caught.value)
    assert str(path) in sentence and '\n' not in sentence
    return sentence


def write_legacy(path: Path, content: bytes) -> Path:
    """A file as ``torch.save`` wrote it before torch 1.6, around a pickle of ours."""
    whole = io.BytesIO()
    torch.save({}, whole, _use_new_zipfile_serialization=False)
    start = io.BytesIO(whole.getvalue())
    for _ in range(3):  # magic number, version, facts about the system
        pickle.load(start)
    # There the identity of a storage has a sixth part, and the bytes follow the pickle.
    content = content.replace(b'tQ', b'NtQ')
    data = struct.pack('<q', 1) + bytes(4)
    path.write_bytes(whole.getvalue()[: start.tell()] + content + pickle.dumps(['0'], 2) + data)
    return path


FORMS = {'zip': write_zip, 'legacy': write_legacy}


@pytest.mark.parametrize('form', FORMS)
def test_the_builder_writes_good_files(form: str, tmp_path: Path) -> None:
    """So that what is refused below is refused for what it adds."""
    path = FORMS[form](tmp_path / 'good.pth', weights(b'K\x05'))
    loaded = read_checkpoint(path)
    assert loaded['w'].shape == (1,) and loaded['meta'] == 5
    trusted = torch.load(path, weights_only=True)
    assert trusted['meta'] == 5 and torch.equal(trusted['w'], loaded['w'])


@pytest.mark.parametrize('name', pickles(Path('mark')))
@pytest.mark.parametrize('form', FORMS)
def test_pickles(name: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    path = FORMS[form](tmp_path / 'evil.pth', weights(pickles(mark)[name]))
    sentence = assert_refused(path, mark)
    assert 'is refused' in sentence or name == 'BUILD of an array that lies'


def duplicated(path: Path, evil: bytes) -> None:
    write_zip(path, weights())
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(f'{path.stem}/data.pkl', evil)


def with_prefix(path: Path, evil: bytes) -> None:
    whole = write_zip(path, evil).read_bytes()
    path.write_bytes(whole[:30] + whole)


def with_two_ends(path: Path, evil: bytes) -> None:
    whole = write_zip(path, weights()).read_bytes()
    path.write_bytes(whole + write_zip(path, evil).read_bytes())


def deflated(path: Path, evil: bytes) -> None:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('evil/data.pkl', weights())
        archive.writestr('evil/data/0', bytes(10**7))


def lying_directory(path: Path, evil: bytes) -> None:
    whole = bytearray(write_zip(path, weights()).read_bytes())
    at = whole.index(b'PK\x01\x02')
    at = whole.index(b'PK\x01\x02', at + 1)
    whole[at + 20 : at + 28] = struct.pack('<II', 2**31, 2**31)
    path.write_bytes(whole)


def torchscript(path: Path, evil: bytes) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path))


def tar(path: Path, evil: bytes) -> None:
    with tarfile.open(path, 'w:') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(evil)
            archive.addfile(info, io.BytesIO(evil))


def tar_that_looks_like_a_pickle(path: Path, evil: bytes) -> None:
    """The name of the first member, which a tar file begins with, is a pickled magic number."""
    tar(path, evil)
    whole = bytearray(path.read_bytes())
    whole[:15] = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'[:15]
    whole[148:156] = b' ' * 8
    whole[148:156] = b'%06o\0 ' % sum(whole[:512])
    path.write_bytes(whole)
    with tarfile.open(path, 'r:') as archive:
        assert len(archive.getnames()) == 3


ARCHIVES: dict[str, Callable[[Path, bytes], object]] = {
    'two data.pkl': duplicated,
    'something before the archive': with_prefix,
    'two archives': with_two_ends,
    'a second pickle': lambda path, evil: write_zip(path, weights(), {'more.pkl': evil}),
    'compressed': deflated,
    'a directory that lies': lying_directory,
    'TorchScript': torchscript,
    'constants.pkl': lambda path, evil: write_zip(path, weights(), {'constants.pkl': evil}),
    'code': lambda path, evil: write_zip(path, weights(), {'code/x.py': evil}),
    'tar': tar,
    'tar that looks like a pickle': tar_that_looks_like_a_pickle,
    'a pickle alone': lambda path, evil: path.write_bytes(evil),
}


@pytest.mark.parametrize('name', ARCHIVES)
def test_archives(name: str, tmp_path: Path) -> None:
    mark, path = tmp_path / 'mark', tmp_path / 'evil.pth'
    ARCHIVES[name](path, weights(pickles(mark)['REDUCE']))
    assert_refused(path, mark)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('zipped', [True, False])
def test_what_torch_writes_loads(protocol: int, zipped: bool, tmp_path: Path) -> None:
    """All dtypes, views, shared storages, plain data, state dicts with their metadata."""
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = (torch.half, torch.bfloat16, torch.double, torch.int8, torch.uint8, torch.int16)
    state = torch.nn.BatchNorm2d(3).state_dict()
    assert isinstance(state, OrderedDict)
    content = {
        'state_dict': state,
        'views': [base, base.t(), base[1:3, ::2], base[0, 0], base[:0]],
        'dtypes': [base.to(dtype) for dtype in (*dtypes, torch.int32, torch.int64, torch.bool)],
        'complex': torch.ones(2, dtype=torch.complex64),
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'plain': [
            None,
            True,
            2**70,
            -1,
            1.5,
            1j,
            'ä',
            b'\xff',
            (1, (2, [3])),
            {1, 2},
            bytearray(b'x'),
        ],
        'torch': [torch.float16, torch.Size([2, 3]), torch.device('cpu')],
        'numpy': [np.float64(2), np.int32(3), np.arange(6.0).reshape(2, 3), np.array(True)],
    }
    path = tmp_path / 'good.pth'
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    loaded = read_checkpoint(path)
    assert loaded['state_dict']._metadata == state._metadata
    assert loaded['plain'] == content['plain'] and loaded['torch'] == content['torch']
    for key in ('views', 'dtypes', 'numpy'):
        for got, wanted in zip(loaded[key], content[key], strict=True):
            assert got.dtype == wanted.dtype and got.shape == wanted.shape
            assert bool((got == wanted).all())
    assert loaded['views'][1].stride() == (1, 6)
    assert loaded['views'][0].data_ptr() == loaded['views'][1].data_ptr()
    assert isinstance(loaded['parameter'], torch.nn.Parameter)
    assert all(torch.equal(value, state[key]) for key, value in loaded['state_dict'].items())


def test_mutated_files_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a checkpoint of MMEngine's kind, changed at random: loaded or refused, no more."""
    good, path = tmp_path / 'good.pth', tmp_path / 'mutated.pth'
    content = {
        'state_dict': torch.nn.Linear(2, 2).state_dict(),
        'message_hub': {'log_scalars': OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1]))},
        'meta': {'seed': np.int64(3), 'time': 'now', 'classes': ('a', 'b'), 'mean': [1.5, None]},
    }
    monkeypatch.setattr('mmse.checkpoints.safe_load.checked.get', lambda path: None)
    chance = random.Random(0)
    ends = {'loaded': 0, 'refused': 0}
    for zipped in (True, False):
        torch.save(content, good, _use_new_zipfile_serialization=zipped)
        whole = good.read_bytes()
        stop = whole.index(b'good/data/0') if zipped else len(whole)
        for _ in range(150):
            changed = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(stop)] = chance.choice(
                    (chance.randrange(256), *b'cRbsQ.(t')
                )
            path.write_bytes(changed)
            try:
                read_checkpoint(path)
                ends['loaded'] += 1
            except UserError as error:
                assert '\n' not in str(error)
                ends['refused'] += 1
    assert ends['refused'] > 100 and ends['loaded'] > 10
