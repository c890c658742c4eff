"""What mmse says about a missing, too old, too new or unusable package, and what it imports."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mmse.utils import dependencies
from mmse.utils.errors import UserError

ROOT = Path(__file__).parents[2]
COMPILE = (
    "pip install 'setuptools<81' wheel ninja psutil && "
    'MMCV_WITH_OPS=1 CPPFLAGS=-g0 pip install --no-build-isolation '
)
OPENMMLAB = {
    'torch': '2.13.0+cpu',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'mmpretrain': '1.2.0',
}
ONEDL = {
    'torch': '2.13.0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.0',
}


@pytest.fixture
def pretend(monkeypatch):
    """Make pip's records say that exactly the given distributions are installed."""

    def install(**versions):
        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(dependencies.metadata, 'version', version)
        monkeypatch.setattr(dependencies, 'find_spec', lambda name: None)

    return install


def without(stack, name):
    return {key: value for key, value in stack.items() if key != name}


def run_python(code, *path):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*path, ROOT]))}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)


@pytest.mark.parametrize('stack', [OPENMMLAB, ONEDL])
def test_both_stacks_fit(pretend, stack):
    pretend(**stack)
    dependencies.check(dependencies.DEPENDENCIES)


def test_what_needs_a_newer_torch(pretend):
    pretend(**{**OPENMMLAB, 'torch': '2.1.2+cu121'})
    with pytest.raises(UserError) as caught:
        dependencies.require_torch('2.6', 'exporting to ONNX')
    assert str(caught.value) == (
        'exporting to ONNX needs torch>=2.6, but torch 2.1.2+cu121 is installed'
    )
    pretend(**OPENMMLAB)
    dependencies.require_torch('2.6', 'exporting to ONNX')


@pytest.mark.parametrize(
    ('package', 'stack', 'sentence'),
    [
        (
            'torch',
            {**OPENMMLAB, 'torch': '2.0.1+cu118'},
            'torch>=2.1,<3 is needed for mmse, but torch 2.0.1+cu118 is installed: '
            "run pip install 'torch>=2.1,<3'",
        ),
        (
            'mmengine',
            {**OPENMMLAB, 'mmengine': '0.10.2'},
            'mmengine>=0.10.3,<1 is needed for mmse, but mmengine 0.10.2 is installed: '
            "run pip install 'mmengine>=0.10.3,<1'",
        ),
        (
            'mmengine',
            {**OPENMMLAB, 'mmengine': '1.0.0'},
            'mmengine>=0.10.3,<1 is needed for mmse, but mmengine 1.0.0 is installed: '
            "run pip install 'mmengine>=0.10.3,<1'",
        ),
        (
            'mmengine',
            {**ONEDL, 'onedl-mmengine': '0.9'},
            'onedl-mmengine>=0.10.3,<1 is needed for mmse, but onedl-mmengine 0.9 is installed: '
            "run pip install 'onedl-mmengine>=0.10.3,<1'",
        ),
        (
            'mmcv',
            without(OPENMMLAB, 'mmcv'),
            'mmcv>=2.0.0,<3 is needed for mmse, but it is not installed: '
            f"run {COMPILE}'mmcv>=2.0.0,<2.2'",
        ),
        (
            'mmcv',
            without(ONEDL, 'onedl-mmcv'),
            'onedl-mmcv>=2.0.0,<3 is needed for mmse, but it is not installed: '
            f"run {COMPILE}'onedl-mmcv>=2.0.0,<3'",
        ),
        (
            'mmdet',
            {**OPENMMLAB, 'mmdet': '2.28.2'},
            'mmdet>=3.2,<4 is needed for mmse, but mmdet 2.28.2 is installed: '
            "run pip install 'mmse[mmdet]'",
        ),
    ],
)
def test_sentence_at_import(pretend, package, stack, sentence):
    pretend(**stack)
    with pytest.warns(UserWarning) as warned, pytest.raises(ImportError) as error:
        dependencies.check([package])
    assert str(error.value) == sentence
    assert [str(warning.message) for warning in warned] == [sentence]


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_every_problem_has_its_line(pretend):
    pretend()
    with pytest.raises(ImportError) as error:
        dependencies.check(['torch', 'mmengine', 'mmcv'])
    starts = [line.split('>=')[0] for line in str(error.value).splitlines()]
    assert starts == ['torch', 'mmengine', 'mmcv']


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_versions_before_a_release_count(pretend):
    pretend(**{**OPENMMLAB, 'torch': '2.7.0a0+79aa17489c.nv25.4'})
    dependencies.check(['torch'])
    pretend(**{**OPENMMLAB, 'mmcv': '2.0.0rc4'})
    with pytest.raises(ImportError, match=r'mmcv 2\.0\.0rc4 is installed'):
        dependencies.check(['mmcv'])


@pytest.mark.parametrize(
    ('stack', 'command'),
    [
        (without(OPENMMLAB, 'mmsegmentation'), "'mmse[mmseg]'"),
        (without(ONEDL, 'onedl-mmsegmentation'), "'onedl-mmsegmentation>=1.2,<2'"),
    ],
)
def test_require_names_the_purpose_and_the_stack(pretend, stack, command):
    pretend(**stack)
    with pytest.raises(UserError) as error:
        dependencies.require('mmseg', 'configs/fcn_se_r50.py')
    name = 'mmsegmentation' if stack.get('mmengine') else 'onedl-mmsegmentation'
    assert str(error.value) == (
        f'{name}>=1.2,<2 is needed for configs/fcn_se_r50.py, but it is not installed: '
        f'run pip install {command}'
    )


@pytest.mark.parametrize('module', ['mmengine', 'mmcv.ops'])
def test_require_imports(module):
    assert dependencies.require(module, 'this test') is sys.modules[module]


RECOMPILE = f"{COMPILE}--force-reinstall --no-deps --no-cache-dir 'mmcv>=2.0.0,<2.2'"
NO_OPS = ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext')
WRONG_OPS = ImportError('/lib/mmcv/_ext.cpython-311.so: undefined symbol: _ZN3c10')


@pytest.mark.parametrize(
    ('module', 'stack', 'error', 'sentence'),
    [
        (
            'mmdet',
            OPENMMLAB,
            AssertionError('MMCV==2.1.0 is used but incompatible. Please install mmcv>=2.0.0rc4.'),
            'mmdet is needed for X, but mmdet 3.3.0 refuses mmcv 2.1.0: '
            f"run {COMPILE}'mmcv>=2.0.0,<2.2'",
        ),
        (
            'mmseg',
            OPENMMLAB,
            AssertionError('MMEngine==0.10.7 is used but incompatible.'),
            'mmseg is needed for X, but mmsegmentation 1.2.2 refuses mmengine 0.10.7: '
            "run pip install 'mmengine>=0.10.3,<1'",
        ),
        (
            'mmseg.models',
            OPENMMLAB,
            ModuleNotFoundError("No module named 'ftfy'", name='ftfy'),
            'mmseg.models is needed for X, but mmsegmentation 1.2.2 needs ftfy, which is not '
            "installed: run pip install 'mmse[mmseg]'",
        ),
        (
            'mmcv.ops',
            {'mmcv-lite': '2.1.0', 'mmengine': '0.10.7'},
            NO_OPS,
            'mmcv.ops is needed for X, but mmcv-lite 2.1.0 is installed without its compiled ops: '
            f'run pip uninstall -y mmcv-lite && {RECOMPILE}',
        ),
        (
            'mmdet.models',
            OPENMMLAB,
            WRONG_OPS,
            f'mmdet.models is needed for X, but mmdet 3.3.0 fails at import ({WRONG_OPS}): '
            f'run {RECOMPILE}',
        ),
    ],
)
def test_require_of_a_module_that_does_not_import(
    pretend, monkeypatch, module, stack, error, sentence
):
    def import_module(name):
        raise error

    pretend(**stack)
    monkeypatch.setattr(dependencies, 'import_module', import_module)
    with pytest.raises(UserError) as raised:
        dependencies.require(module, 'X')
    assert str(raised.value) == sentence


def record(folder, name, version):
    """Write pip's record of a distribution that hides the installed one."""
    info = folder / f'{name}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def test_import_with_a_package_too_old(tmp_path):
    name = dependencies._distribution('mmengine')
    record(tmp_path, name, '0.7.0')
    done = run_python('import mmse', tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f'ImportError: {name}>=0.10.3,<1 is needed for mmse, but {name} 0.7.0 is installed: '
        f"run pip install '{name}>=0.10.3,<1'"
    )


def test_a_type_of_mmse_says_what_is_too_old(tmp_path):
    name = dependencies._distribution('mmcv')
    record(tmp_path, name, '1.7.0')
    done = run_python(
        "from mmengine.registry import MODELS; MODELS.build(dict(type='mmse.SEResNet'))", tmp_path
    )
    assert done.returncode == 1
    assert f'{name}>=2.0.0,<3 is needed for mmse, but {name} 1.7.0 is installed' in done.stderr


def test_a_source_tree_has_the_version_of_its_module(tmp_path, monkeypatch):
    monkeypatch.setattr(dependencies, '_installed', lambda distribution: None)
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text("__version__ = '3.1.0'")
    monkeypatch.delitem(sys.modules, 'mmdet', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r'but mmdet 3\.1\.0 is installed'):
        dependencies.require('mmdet', 'this test')


@pytest.mark.parametrize('module', ['mmse', 'mmse.registry'])
def test_import_is_light(module):
    done = run_python(
        f'import sys, {module}; print(sorted({{"mmdet", "mmseg", "mmcv.ops"}} & set(sys.modules)))'
    )
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stderr


def test_torch_of_numpy_1_beside_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    dependencies.require_numpy()

    def numpy(tensor: torch.Tensor) -> None:
        raise RuntimeError('Numpy is not available')

    monkeypatch.setattr(torch.Tensor, 'numpy', numpy)
    sentence = r'^torch \S+ does not work with numpy \S+ \(Numpy is not available\): pip install '
    with pytest.raises(UserError, match=sentence):
        dependencies.require_numpy()
