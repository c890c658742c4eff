"""timm and mmpretrain, with which the tests and the benchmark compare.

`make setup` installs them into a folder of their own. They need torchvision; where torchvision was
built for another torch, MMEngine's environment report fails as soon as it can be imported.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

FOLDER = Path(sys.prefix, 'peers')
PEERS = ('timm', 'mmpretrain')

# Operators that torchvision's Python code asks for at import. Its compiled code would define them,
# but does not load into another torch. timm and mmpretrain call neither.
_SCHEMAS = ('nms', 'qnms')
_stubs: list[torch.library.Library] = []  # an operator lives as long as its library


def import_peers() -> list[str]:
    """Make ``import timm`` and ``import mmpretrain`` work in this process.

    Call it in a process of its own: afterwards torchvision can be imported as well.

    Returns:
        The names of those that are not installed.
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
