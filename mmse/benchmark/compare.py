"""One benchmark: build the networks, measure them side by side, collect a row for each."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.logging import MMLogger
from torch import nn

from mmse.benchmark.measure import interleaved, peak_memory, ratio, saved_bytes, training_step
from mmse.benchmark.networks import (
    DETECTORS,
    PLAIN,
    build_backbones,
    build_detectors,
    detector_batch,
)
from mmse.benchmark.records import DTYPES, Result, Row, Settings
from mmse.models.kernel_support import why_no_kernels
from mmse.utils.environment import SHAPING, gpu_name, processor, python_version, versions
from mmse.version import __version__

EAGER = f'{PLAIN}, not compiled'


def environment() -> dict[str, Any]:
    """Versions and hardware that the times depend on."""
    return {
        'mmse': __version__,
        **versions(SHAPING),
        'python': python_version(),
        'threads': torch.get_num_threads(),
        'processor': processor(),
        'gpu': gpu_name(),
    }


def quiet() -> None:
    """Silence MMEngine's log of every network's attention and of operators without a count."""
    MMLogger.get_current_instance().setLevel('ERROR')


def run(settings: Settings) -> Result:
    """Measure every network of the settings, side by side in one process.

    Raises:
        UserError: The settings cannot be measured on this machine.
    """
    settings.check()
    if settings.compile:
        # Beyond the limit a network would run uncompiled and be measured as a compiled one.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.fail_on_recompile_limit_hit = True
    quiet()
    result = Result(settings, environment())
    nets, base, batch, result.left_out = _networks(settings)
    rows = {}
    for name, net in nets.items():
        parameters = sum(p.numel() for p in net.parameters())
        rows[name] = Row(name, parameters, None if settings.detector else _macs(net, settings))
        net.to(torch.device(settings.device), memory_format=_memory_format(settings))  # type: ignore[call-overload]
        if settings.compile and name != EAGER:
            net.compile(fullgraph=not settings.detector)
    for mode in settings.modes:
        _measure(mode, nets, base, batch, rows, settings)
    result.rows = list(rows.values())
    return result


def _networks(
    settings: Settings,
) -> tuple[dict[str, nn.Module], str, dict[str, Any], list[str]]:
    """The networks, the name of the plain one, a batch for them, and what could not be built."""
    device = torch.device(settings.device)
    if settings.detector:
        batch = detector_batch(settings.batch, settings.size, device)
        why = why_no_kernels(settings.device, interpreted=False)
        names = [name for name in DETECTORS if not (why and 'kernels' in name)]
        left_out = [] if why is None else [f'full, kernels: {why}']
        return build_detectors(settings.depth, names=names), 'plain', batch, left_out
    nets, left_out = build_backbones(
        settings.only, settings.depth, settings.device, settings.compile
    )
    x = torch.randn(settings.batch, 3, *settings.size, device=device)
    batch = {'x': x.to(memory_format=_memory_format(settings))}
    if settings.compile:
        nets[EAGER] = copy.deepcopy(nets[PLAIN])
    return nets, PLAIN, batch, left_out


def _measure(
    mode: str,
    nets: dict[str, nn.Module],
    base: str,
    batch: dict[str, Any],
    rows: dict[str, Row],
    settings: Settings,
) -> None:
    """Fill the columns of one mode."""
    device = torch.device(settings.device)
    functions = _functions(nets, batch, mode, settings)
    # The hooks that count do not see all that a compiled network keeps.
    if mode == 'training' and not (settings.detector or settings.compile):
        kept = {
            n: saved_bytes(net, _forward(net, batch, mode, settings)) for n, net in nets.items()
        }
        for name, row in rows.items():
            row.saved_bytes, row.saved = kept[name], kept[name] / kept[base]
    seconds = interleaved(functions, settings.rounds, device)
    for name, row in rows.items():
        median = sorted(seconds[name])[settings.rounds // 2]
        setattr(row, f'{mode}_ms', 1000 * median)
        setattr(row, mode, ratio(seconds[name], seconds[base]))
        if mode == 'training':
            row.peak_bytes = peak_memory(functions[name], device)


def _memory_format(settings: Settings) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def _autocast(settings: Settings) -> AbstractContextManager[Any]:
    if settings.dtype == 'float32':
        return nullcontext()
    return torch.autocast(settings.device, DTYPES[settings.dtype])


def _macs(net: nn.Module, settings: Settings) -> float:
    net.eval()
    x = torch.randn(1, 3, *settings.size)
    info = get_model_complexity_info(net, inputs=x, show_table=False, show_arch=False)
    flops: float = info['flops']
    return flops


def _forward(
    net: nn.Module, batch: dict[str, Any], mode: str, settings: Settings
) -> Callable[[], Any]:
    net.train(mode == 'training')
    if settings.norm_eval:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    if settings.detector:
        batch = {**batch, 'mode': 'loss' if mode == 'training' else 'tensor'}

    def forward() -> Any:
        with _autocast(settings):
            return net(**batch) if settings.detector else net(*batch.values())

    return forward


def _functions(
    nets: dict[str, nn.Module], batch: dict[str, Any], mode: str, settings: Settings
) -> dict[str, Callable[[], Any]]:
    functions = {}
    for name, net in nets.items():
        forward = _forward(net, batch, mode, settings)
        if mode == 'training':
            functions[name] = training_step(net, forward)
        else:
            functions[name] = torch.no_grad()(forward)
    return functions
