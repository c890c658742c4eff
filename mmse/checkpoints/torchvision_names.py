"""``torchvision://resnet50`` and its like, also where torchvision is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine
from mmengine.runner.checkpoint import CheckpointLoader, load_from_http, load_from_torchvision

from mmse.utils.errors import UserError


@CheckpointLoader.register_scheme(prefixes=('torchvision://', 'modelzoo://'), force=True)  # type: ignore[untyped-decorator]
def load_from_torchvision_names(filename: str, map_location: Any = None) -> Any:
    """Loader of MMEngine for torchvision's weights.

    MMEngine asks torchvision for the newest of its weights. Where torchvision is not installed, the
    list that MMEngine carries tells where they are.

    Args:
        filename: ``torchvision://`` and a name.
        map_location: As for ``torch.load``.

    Raises:
        UserError: torchvision is not installed, and the list does not have the name.
    """
    if find_spec('torchvision') is not None:
        return load_from_torchvision(filename, map_location=map_location)
    urls = mmengine.load(Path(mmengine.__file__).parent / 'hub/torchvision_0.12.json')
    url = urls.get(filename.partition('://')[2])
    if url is None:
        raise UserError(
            f'{filename}: torchvision is not installed, and MMEngine knows no weights of that '
            'name; install the torchvision that belongs to your torch, or give a file'
        )
    return load_from_http(url, map_location=map_location)
