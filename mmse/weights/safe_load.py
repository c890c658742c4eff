"""Safe loading of checkpoints: tensors, plain data and MMEngine's log buffers, nothing else.

torch >= 2.6 loads with ``weights_only=True``. MMEngine's own checkpoints hold more than tensors: the
message hub's :class:`HistoryBuffer` objects, whose named statistics are pickled through
``builtins.getattr``, and NumPy scalars and arrays. Exactly these are put on torch's allow-list.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmse.errors import UserError


def _history_buffer_getattr(owner: Any, name: str) -> Any:
    """Stand-in for ``getattr`` that reaches HistoryBuffer's public methods and nothing else."""
    if owner is not HistoryBuffer or name.startswith('_') or name not in vars(HistoryBuffer):
        raise pickle.UnpicklingError(f'getattr on {owner!r} is not allowed')
    return getattr(HistoryBuffer, name)


def allow_mmengine_globals() -> None:
    """Put what MMEngine's checkpoints hold on torch's allow-list, for every ``torch.load``."""
    reconstruct, scalar = np._core.multiarray._reconstruct, np._core.multiarray.scalar
    dtypes = {type(np.dtype(char)) for char in np.typecodes['AllInteger'] + '?efd'}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_buffer_getattr, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *dtypes,
            # NumPy 2 renamed numpy.core; checkpoints carry either name.
            *((reconstruct, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
            *((scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
        ]
    )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU without running anything that it carries.

    Args:
        path: A file written by ``torch.save``.

    Raises:
        UserError: The file does not exist, is damaged or no checkpoint, or carries an object that
            is not on the allow-list; the sentence names the file and the object.
    """
    allow_mmengine_globals()
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: no such checkpoint')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r'Unsupported global: GLOBAL (\S+)|getattr on (.+) is not', str(error))
        if unsafe is None:
            raise UserError(f'{path} is damaged or no checkpoint of torch') from error
        raise UserError(
            f'{path} carries {unsafe[1] or unsafe[2]}, which could run code when loaded, and is '
            'refused; load it where you trust it and save its state_dict again'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f'{path} is damaged or no checkpoint of torch: {error}') from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path} holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def state_dict_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, without the ``state_dict`` wrapper and ``module.`` prefixes."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {key.removeprefix('module.'): value for key, value in weights.items()}
