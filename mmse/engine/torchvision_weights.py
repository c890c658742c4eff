"""``torchvision://resnet50`` and its like, where torchvision is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine
from mmengine.runner.checkpoint import CheckpointLoader, load_from_http

from mmse.errors import UserError

PREFIXES = ('torchvision://', 'modelzoo://')


def read_torchvision_names() -> None:
    """Let MMEngine find torchvision's weights in its own list if torchvision is not installed.

    MMEngine asks torchvision for the newest of its weights, and without it cannot load any.
    """
    if find_spec('torchvision') is None:
        CheckpointLoader.register_scheme(PREFIXES, load_from_torchvision_list, force=True)


def load_from_torchvision_list(filename: str, map_location: Any = None) -> Any:
    """Download what MMEngine's list of torchvision's weights has under a name.

    Args:
        filename: The name behind one of ``PREFIXES``.
        map_location: As for ``torch.load``.

    Raises:
        UserError: The list does not have it.
    """
    urls = mmengine.load(Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
    url = urls.get(filename.partition('://')[2])
    if url is None:
        raise UserError(
            f'{filename}: torchvision is not installed, and MMEngine knows no weights of that '
            'name; install the torchvision that belongs to your torch, or give a file'
        )
    return load_from_http(url, map_location=map_location)
