"""What the tail of one block moves: maps read and written, operations launched, maps kept.

Time on a GPU is mostly memory traffic and launches, and both can be counted without one: the tail
runs on small tensors of the CPU with the branches of a device, and a dispatch mode sees every
operation that reaches the kernels. The counts are exact and free of noise.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmse.models import policies
from mmse.models.kernel_support import why_no_kernels

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


class _Launches:
    """In the place of the Triton kernels: counts what they read and write, and computes nothing."""

    def __init__(self, counter: _Counter) -> None:
        self.counter = counter

    def __getattr__(self, name: str) -> Any:
        arguments = getattr(import_module('mmse.models.kernels'), name).arg_names

        def launch(*given: Any, **constants: Any) -> None:
            sizes = dict(zip(arguments, map(self.counter.size, given), strict=False))
            if name == 'merge_forward' or (name == 'apply_backward' and not constants['batch']):
                sizes.pop('y')  # single elements, or nothing
            self.counter.launches += 1
            self.counter.bytes += sum(sizes.values())

        return defaultdict(lambda: launch)


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
        _branches_of(case.device, counter),
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
def _branches_of(device: str, counter: _Counter) -> Iterator[None]:
    """Tensors on the CPU take the branches of a device."""
    with ExitStack() as stack:
        # NumPy's search on the CPU reads a map once, as torch's does, but no dispatch mode sees it.
        search = mock.patch.object(policies, '_first', lambda flat, kind: getattr(flat, kind)(2))
        stack.enter_context(search)
        branches = {'cpu': policies.POLICIES[device]}
        stack.enter_context(mock.patch.dict(policies.POLICIES, branches))
        if why_no_kernels('cuda') is None:
            name = 'mmse.models.kernel_calls.kernels'
            stack.enter_context(mock.patch(name, _Launches(counter)))
        yield
