"""What a checkpoint may name and call: tensors, plain data and what MMEngine adds to them.

MMEngine's own checkpoints hold more than tensors: the message hub's ``HistoryBuffer`` objects and
the annealing function of a one-cycle schedule, which pickle their functions through
``builtins.getattr``, and NumPy scalars and arrays. timm's hold the ``Namespace`` of a command line.

Every function here checks its arguments before it makes anything: what torch and NumPy do with a
size, an offset or a state that they did not write themselves is not relied on.
"""

import math
import pickle
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

# What may be reached through getattr: functions of numbers, never a way out of the class.
REACHABLE: dict[type, tuple[str, ...]] = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
_LONGEST_NAME = 200


class Refused(pickle.UnpicklingError):
    """A checkpoint asks for something that is not allowed; the text names it.

    Args:
        what: The name as the file gives it; it is shortened, and shown in printable letters.
    """

    def __init__(self, what: str) -> None:
        shown = what[:_LONGEST_NAME]
        super().__init__(shown if shown.isprintable() else ascii(shown)[1:-1])


class Unusual(pickle.UnpicklingError):
    """A checkpoint has something that torch does not write, such as a wrong size."""


class Allowed:
    """Stands in for a function or class that a checkpoint may call.

    Args:
        name: Its full name, for errors.
        function: What is called in its place; it raises ``TypeError`` for arguments that the
            original is not given by any program that saves checkpoints.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def __call__(self, *args: Any) -> Any:
        try:
            return self.function(*args)
        except TypeError as error:
            raise Refused(f'{self.name} with arguments that no saving program gives it') from error


def _expect(condition: bool) -> None:
    if not condition:
        raise TypeError


def are_sizes(numbers: Any) -> bool:
    """Whether it is a tuple of sizes, offsets or strides."""
    return type(numbers) in (tuple, torch.Size) and all(
        type(number) is int and 0 <= number < 2**63 for number in numbers
    )


def _tensor(
    storage: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``torch._utils._rebuild_tensor_v2``, for a tensor that lies within its storage."""
    _expect(isinstance(storage, torch.storage.TypedStorage) and not hooks and not metadata)
    _expect(are_sizes((offset,)) and are_sizes(size) and are_sizes(stride))
    _expect(len(size) == len(stride) and isinstance(requires_grad, bool))
    tensor = torch.empty(0, dtype=dtype or storage.dtype)
    if 0 not in size:
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (last + 1) * tensor.element_size() > storage._untyped_storage.nbytes():
            raise Unusual('a tensor that is larger than its data')
    tensor.set_(storage._untyped_storage, offset, size, stride)
    tensor.requires_grad = requires_grad
    return tensor


def _tensor_v3(*args: Any) -> torch.Tensor:
    """``torch._utils._rebuild_tensor_v3``, for the dtypes that have no storage of their own."""
    _expect(len(args) in (7, 8))
    storage, offset, size, stride, requires_grad, hooks, dtype, *metadata = args
    _expect(isinstance(dtype, torch.dtype) and metadata in ([], [None]))
    return _tensor(storage, offset, size, stride, requires_grad, hooks, dtype=dtype)


def _parameter(
    data: torch.Tensor, requires_grad: bool, hooks: Any = None, state: Any = None
) -> torch.nn.Parameter:
    """``torch._utils._rebuild_parameter``; attributes that Python code gave it are left out."""
    _expect(isinstance(data, torch.Tensor) and isinstance(requires_grad, bool) and not hooks)
    return torch.nn.Parameter(data, requires_grad)


def _of_type(function: Any, kind: Any, args: Any, state: Any) -> torch.Tensor:
    """``torch._tensor._rebuild_from_type_v2``; attributes that Python code gave it are left out."""
    _expect(type(function) is Allowed and function.function in (_tensor, _tensor_v3, _parameter))
    _expect(kind in (torch.Tensor, torch.nn.Parameter) and type(args) is tuple)
    tensor: torch.Tensor = function(*args)
    return tensor


def name_of(thing: Any) -> str:
    """The full name of a function or class, or that of the class of anything else."""
    if isinstance(thing, Allowed):
        return thing.name
    kind = thing if hasattr(thing, '__qualname__') else type(thing)
    return f'{kind.__module__}.{kind.__qualname__}'


def attribute(owner: Any, name: Any) -> Any:
    """``getattr`` that reaches the functions in ``REACHABLE`` only."""
    if not isinstance(owner, type) or name not in REACHABLE.get(owner, ()):
        raise Refused(f'{name_of(owner)}.{str(name)[:80]}')
    return getattr(owner, name)


def _encode(text: Any, encoding: Any) -> bytes:
    _expect(type(text) is str and encoding == 'latin1')
    return bytes(text, 'latin1')


def _from(kind: Callable[..., Any], *allowed: type) -> Callable[..., Any]:
    """``kind`` of nothing or of one plain object; never of a number, which it takes for a size."""

    def make(*args: Any) -> Any:
        _expect(len(args) <= 1 and all(type(arg) in allowed for arg in args))
        return kind(*args)

    return make


def _complex(real: Any, imaginary: Any) -> complex:
    _expect(type(real) is float and type(imaginary) is float)
    return complex(real, imaginary)


def _device(kind: Any, index: Any = None) -> torch.device:
    _expect(type(kind) is str and (index is None or type(index) is int))
    return torch.device(kind) if index is None else torch.device(kind, index)


def is_number(dtype: Any) -> bool:
    """Whether it is a NumPy dtype of numbers, which holds no objects."""
    return isinstance(dtype, np.dtype) and dtype.kind in 'biufc'


def _dtype(name: Any, align: Any = False, copy: Any = True) -> Any:
    _expect(type(name) is str and len(name) <= 4)
    dtype = np.dtype(name, copy=True)
    _expect(is_number(dtype))
    return dtype


def _array(kind: Any, shape: Any, code: Any) -> Any:
    """``numpy.core.multiarray._reconstruct``: an empty array, which is then built."""
    _expect(kind is np.ndarray and shape == (0,) and code in (b'b', 'b'))
    return np.empty(0, np.int8)


def _scalar(dtype: Any, data: Any) -> Any:
    _expect(is_number(dtype) and type(data) is bytes and len(data) == dtype.itemsize)
    return np.frombuffer(data, dtype)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """``numpy.core.numeric._frombuffer``, for arrays that pickle protocol 5 wrote."""
    _expect(type(data) in (bytes, bytearray) and is_number(dtype) and are_sizes(shape))
    _expect(order in ('C', 'F') and math.prod(shape) * dtype.itemsize == len(data))
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _named() -> dict[str, Any]:
    calls: dict[str, Callable[..., Any]] = {
        'builtins.getattr': attribute,
        'builtins.bytes': _from(bytes, bytes),
        'builtins.bytearray': _from(bytearray, bytes),
        'builtins.set': _from(set, list),
        'builtins.frozenset': _from(frozenset, list),
        'builtins.complex': _complex,
        'collections.OrderedDict': _from(OrderedDict, list),
        'collections.Counter': _from(Counter, dict),
        '_codecs.encode': _encode,
        'torch.Size': _from(torch.Size, tuple),
        'torch.device': _device,
        'torch._utils._rebuild_tensor': _tensor,
        'torch._utils._rebuild_tensor_v2': _tensor,
        'torch._utils._rebuild_tensor_v3': _tensor_v3,
        'torch._utils._rebuild_parameter': _parameter,
        'torch._utils._rebuild_parameter_with_state': _parameter,
        'torch._tensor._rebuild_from_type_v2': _of_type,
        'numpy.dtype': _dtype,
    }
    for core in ('core', '_core'):  # NumPy 2 renamed it; checkpoints carry either name
        calls[f'numpy.{core}.multiarray._reconstruct'] = _array
        calls[f'numpy.{core}.multiarray.scalar'] = _scalar
        calls[f'numpy.{core}.numeric._frombuffer'] = _from_buffer
    return {
        **{name: Allowed(name, function) for name, function in calls.items()},
        **{f'{kind.__module__}.{kind.__qualname__}': kind for kind in REACHABLE},
        'argparse.Namespace': Namespace,
        'numpy.ndarray': np.ndarray,
        'torch.Tensor': torch.Tensor,
        'torch._tensor.Tensor': torch.Tensor,
        'torch.nn.parameter.Parameter': torch.nn.Parameter,
        'torch.storage.UntypedStorage': torch.UntypedStorage,
    }


NAMED = _named()
