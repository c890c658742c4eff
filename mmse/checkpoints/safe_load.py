"""Safe loading of checkpoints: tensors, plain data and what MMEngine adds to them, nothing else.

torch >= 2.6 loads with ``weights_only=True``. MMEngine's own checkpoints hold more than tensors:
the message hub's ``HistoryBuffer`` objects and the annealing function of a one-cycle schedule,
which pickle their functions through ``builtins.getattr``, and NumPy scalars and arrays. Exactly
these are put on torch's allow-list. ``.safetensors`` files are safe by design.

Once this module is imported, MMEngine's loaders of local files and of URLs read through it.

A checkpoint that is named by a URL is downloaded and then read like a local file: what MMEngine
downloads with, ``torch.hub.load_state_dict_from_url``, unpickles anything.
"""

import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmse.utils.errors import UserError
from mmse.utils.files import ReadFiles

# Checkpoints that were read to be checked, until MMEngine loads them.
checked: ReadFiles[dict[str, Any]] = ReadFiles()

# torch's words for an object that is not on its allow-list, with that object's name.
_REFUSED = re.compile(
    r'GLOBAL (\S+)|reduce for unrecognized function (.+?)(?: which|$)|'
    r'Can only (?:create|build) .* but got (.+)',
    re.MULTILINE,
)

# What a checkpoint may name through getattr: functions of numbers, never a way out of the class.
_REACHABLE = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _allowed_getattr(owner: Any, name: str) -> Any:
    """Stand-in for ``getattr`` that reaches the functions in ``_REACHABLE`` only."""
    # torch compares allowed objects with ==, so an unhashable owner can come as far as this.
    if not isinstance(owner, type) or name not in _REACHABLE.get(owner, ()):
        path = f'{owner.__module__}.{owner.__qualname__}' if isinstance(owner, type) else owner
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {path}.{name} through getattr')
    return getattr(owner, name)


def allow_mmengine_globals() -> None:
    """Let every ``torch.load`` accept what MMEngine's checkpoints hold, and nothing else."""
    reconstruct, scalar = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(char)) for char in np.typecodes['AllInteger'] + '?efd'}
    torch.serialization.add_safe_globals(
        [
            *_REACHABLE,
            (_allowed_getattr, 'builtins.getattr'),
            bytes,  # of empty arrays
            np.ndarray,
            np.dtype,
            *dtypes,
            # NumPy 2 renamed numpy.core; checkpoints carry either name.
            *((reconstruct, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
            *((scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
        ]
    )


@CheckpointLoader.register_scheme(prefixes='', force=True)  # type: ignore[untyped-decorator]
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Loader of MMEngine for a local file, on the CPU; see ``read_checkpoint``.

    Args:
        filename: The file.
        map_location: Not used: MMEngine copies the weights to where the model is.
    """
    return checked.take(Path(filename).expanduser()) or read_checkpoint(filename)


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> dict[str, Any]:
    """Download a checkpoint, unless an earlier run has, and read it like a local file.

    Stands in for ``torch.hub.load_state_dict_from_url`` where MMEngine calls it.

    Args:
        url: Where the checkpoint is.
        model_dir: Folder to keep it in; by default that of ``torch.hub``.
        map_location: Not used: MMEngine copies the weights to where the model is.
        progress: Whether to show a progress bar.

    Raises:
        UserError: It cannot be downloaded, or ``read_checkpoint`` refuses it.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'))
    path = folder / Path(urlparse(url).path).name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=progress)
        except OSError as error:
            raise UserError(f'{url} cannot be downloaded: {error}') from error
    return read_checkpoint(path)


# MMEngine's loaders of http://, https://, torchvision://, open-mmlab:// and mmcls:// all call it.
mmengine.runner.checkpoint.load_url = load_url


def read_checkpoint(path: str | Path, keep: bool = False) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU without running anything that it carries.

    Args:
        path: A file written by ``torch.save``, or one of safetensors by its ending.
        keep: Keep what was read for the next time that MMEngine loads the file.

    Raises:
        UserError: The file does not exist, is damaged or no checkpoint, or carries an object that
            is not on the allow-list; the sentence names the file and the object.
    """
    path = Path(path).expanduser()
    if (known := checked.get(path)) is not None:
        return known
    if not path.is_file():
        raise UserError(f'{path}: no such checkpoint')
    checkpoint = _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path} holds a {type(checkpoint).__name__}, not a dict of weights')
    if not isinstance(checkpoint.get('state_dict', {}), dict) or not state_dict_of(checkpoint):
        raise UserError(f'{path} holds no weights')
    return checked.keep(path, checkpoint) if keep else checkpoint


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f'{path} is damaged or no safetensors file ({error}); fetch it again'
        ) from error


def _read_torch(path: Path) -> Any:
    allow_mmengine_globals()
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        if isinstance(error, pickle.UnpicklingError) and (refused := _REFUSED.search(str(error))):
            raise UserError(
                f'{path} carries {refused[refused.lastindex]}, which could run code when loaded, '  # type: ignore[index]
                'and is refused; load it where you trust it and save its state_dict again'
            ) from error
        raise UserError(
            f'{path} is damaged or no checkpoint of torch; save or fetch it again'
        ) from error


def state_dict_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, without the ``state_dict`` wrapper and ``module.`` prefixes."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {
        key.removeprefix('module.'): value
        for key, value in weights.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
