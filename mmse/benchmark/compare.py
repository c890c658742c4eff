"""One benchmark: build the networks, measure them side by side, gather the rows."""

import copy
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.logging import MMLogger
from torch import nn

from mmse.benchmark.measure import (
    Ratio,
    interleaved,
    peak_memory,
    ratio,
    saved_bytes,
    training_step,
)
from mmse.benchmark.networks import PLAIN, build_backbones, build_detectors, detector_batch
from mmse.utils.errors import UserError

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
MODES = ('training', 'inference')
STRIDE = 32
EAGER = f'{PLAIN}, not compiled'


@dataclass(frozen=True)
class Settings:
    """What is measured, and on what.

    Args:
        depth: Of the backbones.
        size: Height and width of the images, pixels, at least 32.
        batch: Images.
        dtype: 'float32', or 'bfloat16' or 'float16' by autocast.
        channels_last: Memory format of the networks and the images.
        compile: torch.compile the networks.
        device: 'cpu' or 'cuda'.
        rounds: Timed rounds, at least 2.
        only: Parts of the names of the networks; all if None.
        detector: Measure a whole Faster R-CNN instead of backbones.
        modes: 'training', 'inference' or both.
        norm_eval: Batch norms keep their statistics in training, as when a detector is fine-tuned.
    """

    depth: int = 50
    size: tuple[int, int] = (256, 320)
    batch: int = 2
    dtype: str = 'float32'
    channels_last: bool = False
    compile: bool = False
    device: str = 'cpu'
    rounds: int = 15
    only: list[str] | None = None
    detector: bool = False
    modes: Sequence[str] = MODES
    norm_eval: bool = False

    def check(self) -> None:
        """Refuse what cannot be honoured.

        Raises:
            UserError: It names the option.
        """
        if min(self.size) < STRIDE:
            raise UserError(f'--size {self.size}: allowed: {STRIDE} (the stride) or more')
        one_value = self.batch == 1 and max(self.size) <= STRIDE
        if 'training' in self.modes and one_value and not self.norm_eval:
            raise UserError(
                '--batch 1 with --size 32: the last stage has one value a channel, where no batch '
                'norm trains; take 2 images, a larger size, or --modes inference'
            )
        if self.device == 'cuda' and not torch.cuda.is_available():
            raise UserError('--device cuda: torch sees no GPU on this machine')
        if self.device == 'cpu' and self.dtype == 'float16':
            raise UserError('--dtype float16: the CPU has no float16 training; use bfloat16')
        if self.batch < 1 or self.rounds < 2:
            raise UserError('--batch must be at least 1 and --rounds at least 2')


@dataclass
class Row:
    """What was measured of one network; times are medians in milliseconds."""

    name: str
    parameters: int
    macs: float | None = None
    inference_ms: float | None = None
    inference: Ratio | None = None
    training_ms: float | None = None
    training: Ratio | None = None
    saved_bytes: int | None = None
    saved: float | None = None
    peak_bytes: int | None = None


@dataclass
class Result:
    """A benchmark's rows and the circumstances."""

    settings: Settings
    environment: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def environment() -> dict[str, Any]:
    """Versions and hardware that the times depend on."""
    import mmcv
    import mmengine

    import mmse

    packages = {module.__name__: module.__version__ for module in (torch, mmengine, mmcv, mmse)}
    return {
        **packages,
        'python': platform.python_version(),
        'threads': torch.get_num_threads(),
        'processor': _processor(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return next(line.split(':')[1].strip() for line in file if 'model name' in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def quiet() -> None:
    """Log neither what each network's attention is, nor which of its operators have no count."""
    MMLogger.get_current_instance().setLevel('ERROR')


def run(settings: Settings) -> Result:
    """Measure every network of the settings, all of them in one process, in turn.

    Raises:
        UserError: A setting cannot be honoured.
    """
    settings.check()
    # A network that is no longer compiled would be measured under the name of one that is.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    quiet()
    device = torch.device(settings.device)
    result = Result(settings, environment())
    if settings.detector:
        nets, base = build_detectors(settings.depth), 'plain'
        batch = detector_batch(settings.batch, settings.size, device)
    else:
        nets, result.left_out = build_backbones(settings.only, settings.depth)
        base, x = PLAIN, torch.randn(settings.batch, 3, *settings.size, device=device)
        batch = {'x': x.to(memory_format=_memory_format(settings))}
        if settings.compile:
            nets[EAGER] = copy.deepcopy(nets[PLAIN])
    rows = {}
    for name, net in nets.items():
        parameters = sum(p.numel() for p in net.parameters())
        rows[name] = Row(name, parameters, None if settings.detector else _macs(net, settings))
        net.to(device, memory_format=_memory_format(settings))  # type: ignore[call-overload]
        if settings.compile and name != EAGER:
            net.compile(fullgraph=not settings.detector)
    for mode in settings.modes:
        functions = _functions(nets, batch, mode, settings)
        # What a compiled network keeps is not all seen by the hooks that count.
        if mode == 'training' and not (settings.detector or settings.compile):
            kept: dict[str, int] = {}
            for name, net in nets.items():
                kept[name] = saved_bytes(net, _forward(net, batch, mode, settings))
                rows[name].saved_bytes, rows[name].saved = kept[name], kept[name] / kept[base]
        seconds = interleaved(functions, settings.rounds, device)
        for name, row in rows.items():
            median = sorted(seconds[name])[settings.rounds // 2]
            setattr(row, f'{mode}_ms', 1000 * median)
            setattr(row, mode, ratio(seconds[name], seconds[base]))
            if mode == 'training':
                row.peak_bytes = peak_memory(functions[name], device)
    result.rows = list(rows.values())
    return result


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
