"""timm and mmpretrain, which the tests compare with, from the folder that `make setup` keeps apart.

To be imported in a process of its own: whoever else looks for torchvision would find it then.
"""

import sys
from pathlib import Path

import torch

FOLDER = Path(sys.prefix, 'peers')

# What torchvision's Python part asks for at import, beside a torch that its compiled part is not
# made for. timm and mmpretrain call none of it.
_SCHEMAS = ('nms', 'qnms')
_stubs: list[torch.library.Library] = []  # an operator lives as long as its library


def import_peers() -> None:
    """Make ``import timm`` and ``import mmpretrain`` work in this process.

    Raises:
        ModuleNotFoundError: The folder is not there.
    """
    if not FOLDER.is_dir():
        raise ModuleNotFoundError(f'there is no {FOLDER}: make setup installs timm and mmpretrain')
    sys.path.append(str(FOLDER))
    try:
        import torchvision
    except RuntimeError as error:
        if 'operator torchvision::nms does not exist' not in str(error):
            raise
        library = torch.library.Library('torchvision', 'DEF')
        for name in _SCHEMAS:
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _stubs.append(library)
        import torchvision  # noqa: F401
