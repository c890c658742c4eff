"""Classes of OpenMMLab packages that ours inherit from, whether or not they are installed."""

from importlib import import_module
from typing import Any

from mmse.utils.dependencies import require
from mmse.utils.errors import UserError


def base_class(module: str, name: str, subclass: str) -> type:
    """A class of an OpenMMLab package, or a stand-in whose construction says what is missing.

    Args:
        module: The module that has it, such as ``mmdet.datasets``.
        name: Its name.
        subclass: Name of the class of ours that inherits from it.
    """
    package = module.partition('.')[0]
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AssertionError, RuntimeError) as error:
        reason = error

    class Missing:
        def __init__(self, **_: Any) -> None:
            require(package, f'mmse.{subclass}')
            raise UserError(
                f'{module} is needed for mmse.{subclass}, but importing it says: {reason}'
            ) from reason

    return Missing
