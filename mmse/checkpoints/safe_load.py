"""Safe loading of checkpoints: tensors, plain data and what MMEngine adds to them, nothing else.

``torch.load`` reads through the restricted unpickler of ``mmse.checkpoints.unpickler``, the same on
every version of torch: ``weights_only=True`` has no list of what else is allowed before torch 2.4,
and before 2.6 code could get past it (CVE-2025-32434). ``.safetensors`` files are safe by design.

Once this module is imported, all of MMEngine's loaders read through it: those of local files, of
http(s), torchvision, open-mmlab and mmcls, of pavi, s3 and petrel.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmse.checkpoints.allowed import REACHABLE, Refused, Unusual, attribute
from mmse.checkpoints.archive import inspect
from mmse.checkpoints.unpickler import pickle_module
from mmse.utils.errors import UserError
from mmse.utils.files import ReadFiles

# Checkpoints that were read to be checked, until MMEngine loads them.
checked: ReadFiles[dict[str, Any]] = ReadFiles()


def allow_mmengine_globals() -> None:
    """Let torch's own ``torch.load`` accept what MMEngine's checkpoints hold, and nothing else.

    For programs that call ``torch.load`` themselves on torch >= 2.6, where it loads with
    ``weights_only=True``; MMEngine's loaders read through ``read_checkpoint`` and need it not. On
    older versions ``torch.load`` loads anything by default, and this changes nothing.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    reconstruct, scalar = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(char)) for char in np.typecodes['AllInteger'] + '?efd'}
    torch.serialization.add_safe_globals(
        [
            *REACHABLE,
            (attribute, 'builtins.getattr'),
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


class _Torch:
    """``torch`` as MMEngine's checkpoint module sees it: what it loads is read safely."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None, **_: Any) -> Any:
        """Read a file by its name, or an open one, onto the CPU."""
        if isinstance(file, (str, os.PathLike)):
            return read_checkpoint(Path(file))
        return _checked(_read_torch(file, 'the checkpoint'), 'the checkpoint')


# MMEngine's loaders of http(s)://, torchvision://, open-mmlab:// and mmcls:// call load_url. Those
# of pavi://, s3:// and petrel://, and of open-mmlab:// names that are files, call torch.load.
mmengine.runner.checkpoint.load_url = load_url
mmengine.runner.checkpoint.torch = _Torch()


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
    if path.suffix == '.safetensors':
        checkpoint = _checked(_read_safetensors(path), path)
    else:
        with path.open('rb') as file:
            checkpoint = _checked(_read_torch(file, path), path)
    return checked.keep(path, checkpoint) if keep else checkpoint


def _checked(checkpoint: Any, where: str | Path) -> dict[str, Any]:
    if not isinstance(checkpoint, dict):
        raise UserError(f'{where} holds a {type(checkpoint).__name__}, not a dict of weights')
    if not isinstance(checkpoint.get('state_dict', {}), dict) or not state_dict_of(checkpoint):
        raise UserError(f'{where} holds no weights')
    return checkpoint


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f'{path} is damaged or no safetensors file ({error}); fetch it again'
        ) from error


def _read_torch(file: BinaryIO, where: str | Path) -> Any:
    """What ``torch.save`` wrote, by its name if it has one, which is faster than by its bytes."""
    try:
        module = pickle_module(inspect(file))
        source = where if isinstance(where, Path) else file
        with _without('TORCH_FORCE_WEIGHTS_ONLY_LOAD'):
            return torch.load(source, map_location='cpu', pickle_module=module, weights_only=False)
    except Refused as error:
        raise UserError(
            f'{where} carries {error}, which could run code when loaded, and is refused; '
            'load it where you trust it and save its state_dict again'
        ) from error
    except Unusual as error:
        raise UserError(
            f'{where} has {error}, which torch does not write: it is damaged or made to mislead, '
            'and is refused; fetch it again from where you trust it'
        ) from error
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(
            f'{where} is damaged or no checkpoint of torch; save or fetch it again'
        ) from error


@contextmanager
def _without(variable: str) -> Iterator[None]:
    """With it torch refuses every unpickler but its own, which is not safe on older versions."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def state_dict_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, without the ``state_dict`` wrapper and ``module.`` prefixes."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {
        key.removeprefix('module.'): value
        for key, value in weights.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
