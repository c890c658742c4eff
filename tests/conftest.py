"""Fixtures that several test files share."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mmengine.logging import MMLogger
from support import cuda_kernels
from torch import Tensor

from mmse.models import fused, policies
from mmse.models.kernel_support import why_no_kernels

# Before anything imports Triton: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

# Tests of what needs a newer torch than the oldest that is supported.
if not hasattr(torch.serialization, 'add_safe_globals'):
    collect_ignore = ['models/test_sharded.py', 'export']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker('gpu') and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='torch sees no GPU'))
        # Being traced doubles the time of exports, of compilations and of Triton's interpreter.
        of_kernels = getattr(item, 'callspec', None) and item.callspec.params.get('policy')
        if item.get_closest_marker('slow') or of_kernels == 'kernels':
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def import_path() -> Iterator[None]:
    """A benchmark adds the folder of the peers; the processes of later tests must not find it."""
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A benchmark silences MMEngine's logger; later tests must hear it."""
    levels = {logger: logger.level for logger in MMLogger._instance_dict.values()}
    yield
    for logger in MMLogger._instance_dict.values():
        logger.setLevel(levels.get(logger, logging.NOTSET))


@pytest.fixture(autouse=True)
def compilations() -> None:
    """Torch compiles a function for few sizes in a process, and those of other tests count."""
    if 'torch._dynamo' in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def checks_of_data(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the checks of data keep for the next start stays out of the user's cache folder."""
    kept = tmp_path_factory.getbasetemp() / 'data_checks'
    monkeypatch.setattr('mmse.datasets.cache.folder', lambda: kept)


@pytest.fixture
def single_thread() -> Iterator[None]:
    """One thread: on tiny feature maps more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=['cpu', 'gpu', 'kernels'])
def policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fused tail takes the branches of a kind of device, with its kernels' rounding.

    The Triton kernels, which take no float64, run in Triton's interpreter.
    """
    if request.param == 'kernels':
        if why := why_no_kernels('cpu'):
            pytest.skip(why)
        steps = fused._steps
        monkeypatch.setattr(fused, '_steps', lambda *inputs: steps(*inputs[:-1], True))
    if request.param == 'gpu':
        monkeypatch.setitem(policies.POLICIES, 'cpu', policies.POLICIES['cuda'])
        monkeypatch.setattr(torch, 'native_batch_norm', cuda_kernels.native_batch_norm)
    return str(request.param)


def _attention_formula(x: Tensor, params: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    """Channel attention as the documentation writes it, one line a step.

    Args:
        x: Input of shape (B, C, H, W).
        params: Parameters by name, as ``named_parameters`` of the module gives them.
        settings: A value for every key of the config language.
    """
    batch, channels = x.shape[:2]
    s_avg, s_max = x.flatten(2).mean(-1), x.flatten(2).max(-1).values
    if settings['squeeze'] == 'avg':
        s = s_avg
    elif settings['squeeze'] == 'max':
        s = s_max
    elif settings['fusion'] == 'sum':
        s = s_avg + s_max
    else:
        e = params['fusion_logits'].exp()
        s = (e[0] * s_avg + e[1] * s_max) / e.sum()

    hidden = s @ params['fc1.weight'].flatten(1).t()
    if settings['bias']:
        hidden = hidden + params['fc1.bias']
    relu = settings['act'] == 'relu'
    hidden = hidden.clamp(min=0) if relu else hidden / (1 + (-hidden).exp())
    z = hidden @ params['fc2.weight'].flatten(1).t()
    if settings['bias']:
        z = z + params['fc2.bias']

    temperature: Any = settings['temperature']
    if settings['learnable_temperature']:
        temperature = params['raw_temperature'].reshape(()).exp().log1p()
    z = z / temperature
    g = 1 / (1 + (-z).exp()) if settings['gate'] == 'sigmoid' else (z + 3).clamp(0, 6) / 6
    g = g.reshape(batch, channels, 1, 1)
    if not settings['residual']:
        return x * g
    alpha: Any = settings['alpha']
    if settings['learnable_alpha']:
        alpha = params['alpha'].reshape(())
    return x * (1 + alpha * g)


@pytest.fixture
def attention_formula() -> Callable[[Tensor, dict[str, Tensor], dict[str, Any]], Tensor]:
    """The reference for channel attention, independent of the package's code."""
    return _attention_formula


@pytest.fixture
def full_settings() -> Callable[..., dict[str, Any]]:
    """Complete a few settings with the documented defaults."""

    def complete(**changes: Any) -> dict[str, Any]:
        defaults = {
            'squeeze': 'avg+max',
            'fusion': 'softmax',
            'reduction': 16,
            'min_hidden': 4,
            'act': 'silu',
            'gate': 'sigmoid',
            'temperature': 1.0,
            'learnable_temperature': False,
            'residual': False,
            'alpha': 1.0,
            'learnable_alpha': False,
            'bias': True,
        }
        assert not set(changes) - set(defaults)
        return {**defaults, **changes}

    return complete


@pytest.fixture
def logged_warnings() -> Iterator[list[str]]:
    """Messages of level WARNING that MMEngine's current logger gets during the test."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector(level=logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(collector)
    yield messages
    logger.removeHandler(collector)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded, which xdist brings from its workers.

    A property ``summary`` is a line; of a property ``worst ...`` the largest value is shown.
    """
    reports = [report for group in terminalreporter.stats.values() for report in group]
    recorded = [
        pair
        for report in reports
        if getattr(report, 'when', None) == 'call'
        for pair in report.user_properties
    ]
    lines = [value for name, value in recorded if name == 'summary']
    for name in {name for name, _ in recorded if name.startswith('worst ')}:
        values = [value for other, value in recorded if other == name]
        lines.append(f'{name}: {max(values):.1e} in {len(values)} tests')
    if lines:
        terminalreporter.section('what was measured')
        terminalreporter.write_line('\n'.join(sorted(lines)))
