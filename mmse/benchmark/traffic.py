"""What the tail of one block moves: maps read and written, operations launched, maps kept.

Time on a GPU is mostly memory traffic and launches, and both can be counted without one: the tail
runs on small tensors of the CPU with the branches of a device, and a dispatch mode sees every
operation that reaches the kernels. The counts are exact and free of noise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmse.benchmark.peers import import_peers
from mmse.models import ChannelAttention, policies
from mmse.models.fused import fused_tail
from mmse.models.settings import PRESETS
from mmse.utils.files import write_json, write_text

# Two images, as detectors have them on a GPU; in channels_last each further one adds operations.
SHAPE = (2, 64, 16, 16)
MODES = ('training', 'norm_eval', 'inference')
Tail = Callable[[Tensor, Tensor, nn.Module], Tensor]

# Operations that launch nothing: views, allocations, values read back.
VIEWS = {
    *(
        'view',
        '_unsafe_view',
        'expand',
        'slice',
        'select',
        'unsqueeze',
        'squeeze',
        'squeeze_',
        't',
        'alias',
    ),
    *('transpose', 'permute', 'as_strided', 'detach', 'split', 'unbind'),
    *('_reshape_alias', 'split_with_sizes', 'empty', 'empty_like', 'new_empty', 'empty_strided'),
    *('lift_fresh', '_local_scalar_dense', 'promote_types'),
}
# Of a map these touch single elements, or only its shape.
SMALL = {'gather', 'scatter_', 'new_ones', 'zeros_like', 'ones_like'}


@dataclass(frozen=True)
class Case:
    """How a tail is run.

    Args:
        mode: ``'training'``, ``'norm_eval'`` (with running statistics) or ``'inference'``.
        amp: Maps in bfloat16 under autocast, parameters in float32; else all in float32.
        channels_last: Memory format of the maps.
        device: Whose branches are taken: ``'cuda'`` or ``'cpu'``.
    """

    mode: str
    amp: bool = False
    channels_last: bool = False
    device: str = 'cuda'


@dataclass(frozen=True)
class Traffic:
    """What one tail moves, forward and backward.

    Args:
        maps: Feature maps read or written, in units of one map in its own precision.
        launches: Operations that reach a kernel.
        kept: Maps that are kept for the backward pass.
    """

    maps: float
    launches: int
    kept: float


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of whole maps and operations; see ``Traffic``."""

    def __init__(self, numel: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = numel
        self.bytes = self.launches = 0

    def size(self, tensor: Any) -> int:
        """Bytes of a tensor that has about the size of a map; what is expanded is cached."""
        if not isinstance(tensor, Tensor):
            return 0
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        numel = 1
        for length, stride in steps:
            numel *= length if stride else 1
        return numel * tensor.element_size() if numel >= self.numel // 4 else 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in VIEWS:
            return found
        self.launches += 1
        if name in SMALL:
            return found
        given = {key: value for key, value in kwargs.items() if key != 'out'}
        read = [self.size(value) for value in tree_flatten((args, given))[0]]
        written = sum(self.size(value) for value in tree_flatten(found)[0])
        self.bytes += written + self._read(name, read, args)
        return found

    def _read(self, name: str, read: list[int], args: tuple[Any, ...]) -> int:
        """Bytes that are read, where the kernels read an input twice or not at all."""
        if name == 'copy_':
            return sum(read[1:])
        if name in ('fill_', 'zero_'):
            return 0
        if name == 'native_batch_norm' and args[5]:
            return sum(read) + read[0]  # once for the statistics
        if name == 'native_batch_norm_backward':
            sums, maps = args[7] or any(args[9][1:]), read[0] + read[1]
            grad = (maps if args[7] else read[0]) if args[9][0] else 0
            return (maps if sums else 0) + grad
        if name == 'adaptive_max_pool2d' and not args[0].is_contiguous():
            return 3 * sum(read)  # CUDA's copies the map first
        return sum(read)


def count(tail: Tail, norm: nn.Module, extra: nn.Module | None, case: Case) -> Traffic:
    """Count what a tail moves.

    Args:
        tail: Called with the last convolution's output, the shortcut and the norm.
        norm: The norm.
        extra: The module whose parameters the tail uses besides; None for none.
        case: How it is run.
    """
    norm.train(case.mode == 'training')
    grad = case.mode != 'inference'
    dtype = torch.bfloat16 if case.amp else torch.float32
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    y, shortcut, grad_out = (
        torch.randn(SHAPE).to(dtype, memory_format=layout).requires_grad_(grad) for _ in range(3)
    )
    modules = nn.ModuleList([norm] if extra is None else [norm, extra])
    parameters = list(modules.parameters())
    own = {t.untyped_storage()._cdata for t in (*parameters, *modules.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.detach()
        return tensor.detach()

    counter, size = _Counter(y.numel()), y.numel() * y.element_size()
    with (
        _branches_of(case.device),
        torch.set_grad_enabled(grad),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        counter,
    ):
        with torch.autocast('cpu', dtype=dtype) if case.amp else nullcontext():
            out = tail(y, shortcut, norm)
        if grad:
            torch.autograd.grad(out, [y, shortcut, *parameters], grad_out.detach())
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return Traffic(round(counter.bytes / size, 2), counter.launches, round(held / size, 2))


@contextmanager
def _branches_of(device: str) -> Iterator[None]:
    """Tensors on the CPU take the branches of a device."""
    # NumPy's search on the CPU reads a map once, as torch's does, but no dispatch mode sees it.
    seen = mock.patch.object(policies, '_first_maximum', lambda flat: flat.argmax(2))
    with seen, mock.patch.dict(policies.POLICIES, cpu=policies.POLICIES[device]):
        yield


def composed(attention: nn.Module | None) -> Tail:
    """The tail as mmdet, timm and mmpretrain write it: each module in turn, in place at the end."""

    def tail(y: Tensor, shortcut: Tensor, norm: nn.Module) -> Tensor:
        out = norm(y) if attention is None else attention(norm(y))
        return out.add_(shortcut).relu_()  # type: ignore[no-any-return]

    return tail


def fused(attention: ChannelAttention) -> Tail:
    """The tail as one function."""
    return lambda y, shortcut, norm: fused_tail(y, shortcut, norm, attention)  # type: ignore[arg-type]


def _peers(channels: int) -> dict[str, nn.Module]:
    """The attention of other packages, those that are installed."""
    missing, found = import_peers(), {}
    if 'timm' not in missing:
        from timm.layers.squeeze_excite import SEModule

        found['timm SE'] = SEModule(channels)
        found['timm SE, max pool'] = SEModule(channels, add_maxpool=True)
    if 'mmpretrain' not in missing:
        from mmpretrain.models.utils import SELayer

        found['mmpretrain SE'] = SELayer(channels)
    return found


def tails() -> dict[str, tuple[Tail, nn.Module | None]]:
    """Every tail that is compared, with the module that it uses, by name."""
    channels = SHAPE[1]
    found: dict[str, tuple[Tail, nn.Module | None]] = {'plain ResNet': (composed(None), None)}
    found |= {name: (composed(module), module) for name, module in _peers(channels).items()}
    for preset in PRESETS:
        module = ChannelAttention(channels, preset=preset)
        found[f'mmse {preset}, not fused'] = composed(module), module
        found[f'mmse {preset}'] = fused(module), module
    return found


CASES = {
    'training, fp32': Case('training'),
    'norm_eval, fp32': Case('norm_eval'),
    'inference, fp32': Case('inference'),
    'training, fp32, channels_last': Case('training', channels_last=True),
    'training, AMP': Case('training', amp=True),
    'training, AMP, channels_last': Case('training', amp=True, channels_last=True),
    'norm_eval, AMP, channels_last': Case('norm_eval', amp=True, channels_last=True),
    'inference, AMP, channels_last': Case('inference', amp=True, channels_last=True),
    'training on a CPU': Case('training', device='cpu'),
    'inference on a CPU': Case('inference', device='cpu'),
}


def count_all() -> dict[str, dict[str, Traffic]]:
    """The traffic of every tail in every case, by the names of both."""
    return {
        name: {
            label: count(tail, nn.BatchNorm2d(SHAPE[1]), module, case)
            for label, case in CASES.items()
        }
        for name, (tail, module) in tails().items()
    }


def traffic_table(counts: dict[str, dict[str, Traffic]]) -> str:
    """Markdown; a cell has the maps read or written, the operations, and the maps kept."""
    lines = ['| ' + ' | '.join(('tail', *CASES)) + ' |', '|---|' + '---:|' * len(CASES)]
    for name, row in counts.items():
        cells = [f'{t.maps:g} / {t.launches} / {t.kept:.2f}' for t in row.values()]
        lines.append('| ' + ' | '.join((name, *cells)) + ' |')
    return '\n'.join(lines)


def write_traffic(folder: Path) -> tuple[str, list[Path]]:
    """Count everything, write ``traffic.json`` and ``traffic.md``; the table and their paths."""
    counts = count_all()
    table = traffic_table(counts)
    files = [folder / 'traffic.json', folder / 'traffic.md']
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: {label: asdict(t) for label, t in row.items()} for name, row in counts.items()}
    write_json(files[0], {'torch': torch.__version__, 'tails': rows})
    head = (
        '# What the tail of one block moves\n\nNorm, attention, addition and ReLU, forward and, in '
        'training, backward: feature maps read or written / operations that reach a kernel / '
        "maps kept for the backward pass. Counted on a CPU with each device's branches; two "
        f'images; torch {torch.__version__}.'
    )
    write_text(files[1], f'{head}\n\n{table}\n')
    return table, files
