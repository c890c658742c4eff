"""What has a public name in newer versions of torch only, for torch 2.1 and later."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch.nn.modules import module as _module

Function = TypeVar('Function', bound=Callable[..., Any])

# Public since torch 2.3.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling


def untraced(function: Function) -> Function:
    """Keep a function out of compiled graphs before torch 2.6, which enters what is not for it."""
    if hasattr(torch.compiler, 'set_stance'):  # since torch 2.6
        return function
    return cast(Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


@lru_cache
def adds_mixed_products_in_place() -> bool:
    """Whether ``addcmul_`` of a map in half precision takes factors in single precision on CPUs."""
    half, single = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    try:
        half.addcmul_(half, single)
    except RuntimeError:  # torch 2.1
        return False
    return True


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """A context in which autocast casts nothing on a device, given its type."""
    if hasattr(torch, 'get_autocast_dtype'):  # since torch 2.4
        enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    elif device == 'cuda':
        enabled = torch.is_autocast_enabled()
    else:
        enabled = device == 'cpu' and torch.is_autocast_cpu_enabled()
    return torch.autocast(device, enabled=False) if enabled else nullcontext()


def has_global_hooks() -> bool:
    """Whether hooks for all modules are registered (``register_module_forward_hook`` and such)."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )
