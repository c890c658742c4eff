"""The metadata that pip reads, the make targets, and what the set-up runs and skips."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.wheels import ROOT, build, copy_sources

pytest_plugins = ('support.wheel_fixtures',)

# Where `make setup` puts what only tests need; the OneDL environment has no such folder.
PEERS = Path(sys.prefix, 'peers')
STACK = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'opencv-python'}


def pins(name):
    """The requirements of one file, as a set of parsed ones."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return {Requirement(line) for line in lines if line and not line.startswith('#')}


@pytest.fixture(scope='module')
def wheel(built):
    """The wheel, opened."""
    with zipfile.ZipFile(built.wheel) as archive:
        yield archive


@pytest.fixture(scope='module')
def metadata(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith('.dist-info/METADATA')]
    return message_from_bytes(wheel.read(name))


@pytest.fixture(scope='module')
def extras(metadata):
    """Requirements by extra, with the extra's marker taken off; None: of every installation."""
    found = {None: set(), **{extra: set() for extra in metadata.get_all('Provides-Extra')}}
    for line in metadata.get_all('Requires-Dist'):
        spec, _, marker = line.partition(';')
        extra = re.search(r'extra == "(\w+)"', marker)
        rest = re.sub(r'( and )?extra == "\w+"', '', marker).strip()
        found[extra and extra[1]].add(Requirement('; '.join(filter(None, [spec.strip(), rest]))))
    return found


def test_metadata(metadata):
    assert metadata['Name'] == 'mmse'
    assert metadata['License-Expression'] == 'Apache-2.0'
    python = Requirement(f'python{metadata["Requires-Python"]}').specifier
    fits = [version for version in ('3.9', '3.10', '3.11', '3.12', '3.13') if version in python]
    assert fits == ['3.10', '3.11', '3.12']


def test_wheel_holds_the_package_only(wheel):
    tops = {name.split('/')[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith('.dist-info')} == {'mmse'}
    assert 'mmse/registry.py' in wheel.namelist()
    templates = {str(p.relative_to(ROOT)) for p in (ROOT / 'mmse').rglob('*.jinja')}
    assert len(templates) == 4
    assert templates <= set(wheel.namelist())


def mim_files():
    """What the wheel has for MIM and MMEngine, by its path in the repository."""
    names = 'train test ablate benchmark convert_weights export_detector export_onnx'
    tools = {
        f'tools/{name}.py' for name in (*names.split(), 'inspect_gates', 'predict', 'prepare_data')
    }
    configs = [p for p in (ROOT / 'configs').rglob('*.*') if p.suffix != '.pyc']
    assert len(configs) > 50
    return {'model-index.yml', *tools, *(str(p.relative_to(ROOT)) for p in configs)}


def test_wheel_holds_configs_tools_and_model_index(wheel):
    prefix = 'mmse/.mim/'
    there = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    assert there == mim_files()
    for name in there:
        assert wheel.read(prefix + name) == (ROOT / name).read_bytes(), name
    [record] = [name for name in wheel.namelist() if name.endswith('.dist-info/RECORD')]
    recorded = {line.split(',')[0] for line in wheel.read(record).decode().splitlines()}
    assert {prefix + name for name in there} <= recorded


def test_mim_finds_one_file_for_the_name_of_a_config(wheel):
    """MIM takes the only file of that name in the whole package."""
    counts = Counter(name.rpartition('/')[2] for name in wheel.namelist())
    names = [name for name in mim_files() if re.match(r'configs/(?!.*_base_).*\.py', name)]
    assert len(names) > 30
    assert {counts[name.rpartition('/')[2]] for name in names} == {1}


def test_sdist_holds_what_a_wheel_is_built_from(built):
    with tarfile.open(built.sdist) as tar:
        names = {name.partition('/')[2] for name in tar.getnames()}
    assert mim_files() | {'README.md', 'LICENSE', 'CHANGELOG.md', 'setup.py'} <= names
    assert {f'requirements/{path.name}' for path in (ROOT / 'requirements').glob('*')} <= names


def test_a_build_leaves_the_sources_as_they_are(built):
    assert not list((built.unpacked / 'mmse').rglob('.mim'))


def test_a_second_build_has_no_config_that_is_gone(built, wheel, tmp_path):
    again = tmp_path / 'again'
    shutil.copytree(built.unpacked, again)
    assert list(again.glob('build/lib/mmse/.mim/configs/fcn_se_r50.py'))
    (again / 'configs/fcn_se_r50.py').unlink()
    build('wheel', again, tmp_path)
    [path] = tmp_path.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        gone = set(wheel.namelist()) - set(archive.namelist())
    assert gone == {'mmse/.mim/configs/fcn_se_r50.py'}


def test_an_editable_installation_has_no_copies(tmp_path):
    source = tmp_path / 'source'
    copy_sources(source)
    build('editable', source, tmp_path / 'lenient')
    [path] = (tmp_path / 'lenient').glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if '.mim' in name]
    assert not list(source.rglob('.mim'))
    # In the strict mode all that a wheel has is linked, from what the build command reports.
    build('editable', source, tmp_path / 'strict', {'editable_mode': 'strict'})
    [mim] = (source / 'build').glob('__editable__*/mmse/.mim')
    linked = {str(p.relative_to(mim)): p for p in mim.rglob('*') if not p.is_dir()}
    assert set(linked) == mim_files()
    assert all(path.samefile(source / name) for name, path in linked.items())


def test_index_servers_take_the_distributions(built, metadata):
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert (
        metadata.get_payload(decode=True).decode().strip()
        == (ROOT / 'README.md').read_text().strip()
    )
    done = subprocess.run(
        [sys.executable, '-m', 'twine', 'check', '--strict', built.sdist, built.wheel],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('PASSED') == 2


def test_model_index():
    """Every entry is a config here, with the figures of results/README.md and no others."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert list(index) == ['Import']
    files = [yaml.safe_load((ROOT / name).read_text()) for name in index['Import']]
    collections = {entry['Name'] for file in files for entry in file['Collections']}
    models = [entry for file in files for entry in file['Models']]
    results = (ROOT / 'results/README.md').read_text().splitlines()
    for model in models:
        # MIM looks names up in lower case, and MMEngine configs by their path.
        assert model['Name'] == Path(model['Config']).stem == model['Name'].lower()
        assert (ROOT / model['Config']).is_file()
        assert model['In Collection'] in collections
        assert 'Weights' not in model
        [row] = [line for line in results if line.startswith(f'| `{model["Config"]}`')]
        assert f'| {model["Metadata"]["Iterations"]} |' in row
        [result] = model['Results']
        assert set(result) == {'Task', 'Dataset', 'Metrics'}
        names = {'box AP': 'bbox mAP', 'box AP50': 'mAP_50'}
        for key, value in result['Metrics'].items():
            shown = f'{names[key]} {value / 100:.3f}' if key in names else f'{key} {value}'
            assert re.search(rf'{re.escape(shown)}(,|;| \|)', row), shown
    assert len({model['Name'] for model in models}) == len(models) == 4
    assert {model['In Collection'] for model in models} == collections


@pytest.mark.skipif(not (PEERS / 'modelindex').is_dir(), reason='model-index is not installed')
def test_model_index_is_read_by_the_library_of_mim(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = (
        f'import sys; sys.path.append({str(PEERS)!r})\n'
        'from modelindex.load_model_index import load\n'
        f'index = load({str(tmp_path / "mmse/.mim/model-index.yml")!r})\n'
        'assert index.check(silent=True) == [], index.check(silent=True)\n'
        'for model in index.models:\n'
        '    print(model.name, model.in_collection, model.results[0].metrics)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "fcn_se_r50 FCN {'mIoU': 64.4, 'aAcc': 84.2}"


def test_an_installation_asks_for_nothing_of_the_stack(extras):
    names = {requirement.name for requirement in extras[None]}
    assert 'numpy' in names
    assert not {name for name in names if name in STACK or name.startswith('onedl')}
    assert not [requirement for requirement in extras[None] if requirement.specifier]


def test_extras_are_the_files(extras):
    clip = {pin for pin in pins('libraries') if pin.name in ('ftfy', 'regex')}
    assert len(clip) == 2
    named = {'openmmlab', 'onedl', 'mmdet', 'mmseg', 'ray', 'onnx', 'dev'}
    assert set(extras) == {None, *named}
    # What a user adds to an environment of theirs has no pins.
    assert extras['ray'] == {Requirement('ray')}
    assert extras['onnx'] == {Requirement(n) for n in ('onnx', 'onnxruntime', 'onnxscript')}
    assert extras['openmmlab'] == pins('openmmlab') | clip
    assert extras['onedl'] == pins('onedl')
    assert extras['dev'] == pins('dev')
    assert extras['mmdet'] == {pin for pin in pins('openmmlab') if pin.name == 'mmdet'}
    segmentation = {pin for pin in pins('openmmlab') if pin.name == 'mmsegmentation'}
    assert extras['mmseg'] == segmentation | clip


def test_every_pin_is_exact_and_given_once():
    seen = set()
    for path in (ROOT / 'requirements').glob('*.txt'):
        if path.stem in ('runtime', 'torch21'):  # the second has pins of its own for all
            continue
        for pin in pins(path.stem):
            assert str(pin.specifier).startswith('=='), pin
            assert (pin.name, str(pin.marker)) not in seen, pin
            seen.add((pin.name, str(pin.marker)))
    of_peers = {(pin.name, str(pin.marker)) for pin in pins('peers')}
    assert 'torchvision' not in {name for name, _ in seen - of_peers}


@pytest.mark.parametrize(
    ('target', 'command'),
    [
        ('demo', 'python tools/train.py configs/faster_rcnn_se_r50.py'),
        ('test', '--cov --cov-fail-under=90'),
        ('lint', 'python -m ruff check .'),
        ('setup', 'bash tools/setup_env.sh'),
        ('clean', 'rm -rf build'),
        ('help', 'make demo'),
    ],
)
@pytest.mark.parametrize(
    ('stack', 'venv'),
    [('openmmlab', '.venv'), ('onedl', '.venv-onedl'), ('torch21', '.venv-torch21')],
)
def test_make_targets(target, command, stack, venv):
    # The make that runs the tests hands its own TESTS and STACK on by this variable.
    env = {key: value for key, value in os.environ.items() if not key.startswith('MAKE')}
    command_line = ['make', '-n', target, f'STACK={stack}']
    plan = subprocess.run(command_line, cwd=ROOT, env=env, capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    assert command in plan.stdout
    if target in ('demo', 'test', 'lint'):
        assert f"bash tools/setup_env.sh '{stack}' '{venv}'" in plan.stdout
        assert f'{venv}/bin/python' in plan.stdout


def test_ci_brings_a_browser_and_calls_make_only():
    script = ROOT / '.ci' / 'run'
    lines = [line.strip() for line in script.read_text().splitlines() if line and line[0] != '#']
    assert lines == [
        'set -euo pipefail',
        'cd "$(dirname "$0")/.."',
        'if ! command -v chromium >/dev/null; then',
        'apt-get update -qq',
        'apt-get install -y -qq --no-install-recommends chromium >/dev/null',
        'fi',
        'make lint test',
        "tests='tests/checkpoints tests/models tests/hooks tests/engine'",
        'make test STACK=torch21 TESTS="$tests --ignore=tests/engine/test_installed_configs.py"',
    ]
    paths = re.findall(r'tests/[\w./]+', ' '.join(lines[-2:]))
    assert len(paths) == 5 and all((ROOT / path).exists() for path in paths)
    assert os.access(script, os.X_OK)


# Stands for every Python of the set-up: notes how it was called, and can be told to fail.
FAKE_PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
for ((k = 1; k < $#; k++)); do
    next=$((k + 1))
    if [[ ${!k} == -r ]]; then cat "${!next}" >>"$CALLS"; fi
done
if [[ $* == *"${FAIL_ON:-nothing fails}"* ]]; then exit 1; fi
if [[ $1 == tools/mmcv_wheel.py ]]; then printf "$WHEELS"; fi
if [[ $1 == -m && $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def setup(tmp_path):
    """The set-up in a copy of the repository with a Python that installs nothing."""
    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    for name in ('setup.py', 'pyproject.toml', 'tools/setup_env.sh', 'mmse/version.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / 'bin').mkdir()
    for name in ('python3.11', 'python3.12', 'python3.10', 'python3', 'c++'):
        (tmp_path / 'bin' / name).write_text(FAKE_PYTHON)
        (tmp_path / 'bin' / name).chmod(0o755)
    calls = tmp_path / 'calls'

    def run(stack='openmmlab', fail_on='nothing fails', **more):
        calls.write_text('')
        env = {
            'PATH': f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'CALLS': str(calls),
            'FAIL_ON': fail_on,
            'MAX_JOBS': '2',
            **more,
        }
        done = subprocess.run(
            ['bash', str(tmp_path / 'tools' / 'setup_env.sh'), stack, '.venv'],
            capture_output=True,
            text=True,
            env=env,
        )
        steps = [line[1] for line in done.stdout.splitlines() if ' done in ' in line]
        return done, steps, calls.read_text()

    return run


def test_setup_runs_every_step_and_then_none(setup):
    done, steps, calls = setup()
    assert (done.returncode, steps) == (0, ['1', '2', '3', '4', '5', '6']), done.stderr
    assert "[4/6] compiling mmcv's ops: about 11 minutes on 2 cores, once" in done.stdout
    assert '--force-reinstall' not in calls
    done, steps, calls = setup()
    assert (done.returncode, steps, calls) == (0, [], '')
    assert done.stdout == 'set-up: .venv is complete\n'


def test_setup_of_the_oldest_stack(setup):
    """Its own pins win, each package is asked for once, and Python 3.10 is preferred."""
    done, _, calls = setup('torch21')
    assert done.returncode == 0, done.stderr
    for name in ('torch', 'torchvision', 'numpy', 'mmengine', 'opencv-python-headless'):
        [asked] = {line for line in calls.splitlines() if line.startswith(f'{name}==')}
        assert Requirement(asked) in pins('torch21')
    assert 'scipy==' in calls
    _, _, usual = setup('openmmlab')
    assert 'torch==2.1.2' not in usual


def test_setup_redoes_what_a_changed_file_touches(setup, tmp_path):
    setup()
    dev = tmp_path / 'requirements' / 'dev.txt'
    dev.write_text(f'{dev.read_text()}tabulate==0.9.0\n')
    assert setup()[1] == ['3', '6']
    (tmp_path / 'requirements' / 'torch.txt').write_text('torch==2.14.0\n')
    _, steps, calls = setup()
    assert steps == ['2', '4', '5', '6']
    assert '--force-reinstall --no-cache-dir mmcv==' in calls


def test_a_failed_step_is_run_again(setup):
    done, steps, _ = setup(fail_on='mmcv==')
    assert (done.returncode, steps) == (1, ['1', '2', '3'])
    assert 'step 4 of 6 has failed' in done.stderr
    assert setup()[1] == ['4', '5', '6']


def test_a_wheel_of_another_torch_is_compiled_again(setup):
    _, _, calls = setup(fail_on='import mmcv.ops')
    assert '--force-reinstall --no-cache-dir mmcv==' in calls


def test_a_compiled_mmcv_is_offered_and_taken_if_asked_for(setup, tmp_path):
    page = 'https://wheels.example/index.html'
    done, _, calls = setup(WHEELS=page)
    assert f"{page} has mmcv==2.1.0 compiled: stop and run 'make setup MMCV_WHEEL=1'" in done.stdout
    assert 'which saves about 11 minutes' in done.stdout
    assert page not in calls
    done, _, calls = setup('onedl', WHEELS=page, MMCV_WHEEL='1')
    assert done.returncode == 0, done.stderr
    assert f'--only-binary onedl-mmcv --find-links {page} onedl-mmcv==' in calls
    assert '--no-build-isolation onedl-mmcv' not in calls
    (tmp_path / '.venv/.mmse-setup/mmcv_ops').unlink()
    done, _, calls = setup('onedl', MMCV_WHEEL='1')
    assert (done.returncode, 'pip' in calls) == (2, False)
    assert 'MMCV_WHEEL: there is no compiled onedl-mmcv==2.3.6 for this Python' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'page'),
    [
        (('mmcv', '2.1.2+cu121', '12.1'), 'openmmlab.com/mmcv/dist/cu121/torch2.1.0/index.html'),
        (('mmcv', '2.1.2+cpu', None), 'openmmlab.com/mmcv/dist/cpu/torch2.1.0/index.html'),
        (('onedl-mmcv', '2.8.0+cu128', '12.8'), 'onedl.ai/cu128-torch280/simple/onedl-mmcv/'),
        (('onedl-mmcv', '2.10.1', None), 'onedl.ai/cpu-torch2101/simple/onedl-mmcv/'),
    ],
)
def test_where_compiled_wheels_are(arguments, page):
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import mmcv_wheel
    finally:
        sys.path.remove(str(ROOT / 'tools'))
    assert mmcv_wheel.index_of(*arguments).endswith(page)
    name = mmcv_wheel.wheel_tag('onedl-mmcv', '2.3.6', (3, 11))
    assert name == 'onedl_mmcv-2.3.6-cp311-cp311-'


def test_setup_of_the_forks_installs_no_upstream_package(setup):
    done, _, calls = setup('onedl')
    assert done.returncode == 0, done.stderr
    assert 'install --no-deps --no-build-isolation onedl-mmcv==' in calls
    assert ' mmcv==' not in calls


@pytest.mark.parametrize(
    ('stack', 'fail_on', 'sentence'),
    [
        ('mmlab', 'nothing fails', 'STACK=mmlab is unknown: use STACK=openmmlab'),
        ('openmmlab', 'import sys', 'Python 3.10 to 3.12 with its venv module is needed'),
    ],
)
def test_setup_that_cannot_start_says_why(setup, stack, fail_on, sentence):
    done, steps, _ = setup(stack, fail_on)
    assert (done.returncode, steps) == (2, [])
    assert done.stderr.startswith(f'set-up: {sentence}')
    assert len(done.stderr.splitlines()) == 1
