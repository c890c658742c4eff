"""timm and mmpretrain, which the tests and the benchmark compare with.

`make setup` keeps them in a folder of their own: they need torchvision, and MMEngine's environment
report dies where torchvision can be imported beside a torch that it is not made for.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

FOLDER = Path(sys.prefix, 'peers')
PEERS = ('timm', 'mmpretrain')

# What torchvision's Python part asks for at import, beside a torch that its compiled part is not
# made for. timm and mmpretrain call none of it.
_SCHEMAS = ('nms', 'qnms')
_stubs: list[torch.library.Library] = []  # an operator lives as long as its library


def import_peers() -> list[str]:
    """Make ``import timm`` and ``import mmpretrain`` work in this process, where they are there.

    To be called in a process of its own, because whoever looks for torchvision would find it then.

    Returns:
        The peers that are not installed.
    """
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    missing = [name for name in PEERS if find_spec(name) is None]
    if find_spec('torchvision') is not None:
        _import_torchvision()
    return missing


def _import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError as error:
        if 'operator torchvision::nms does not exist' not in str(error):
            raise
        library = torch.library.Library('torchvision', 'DEF')  # type: ignore[no-untyped-call]
        for name in _SCHEMAS:
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')  # type: ignore[no-untyped-call]
        _stubs.append(library)
        import torchvision  # noqa: F401
