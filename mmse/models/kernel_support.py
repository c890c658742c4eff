"""Where the Triton kernels of the tail can run; this does not import Triton."""

import os
from functools import lru_cache
from importlib import metadata

import torch
from packaging.specifiers import SpecifierSet

# They were compiled ahead of time with 3.4, 3.6 and 3.9, and run in 3.9's interpreter.
VERSIONS = SpecifierSet('>=3.4,<4')
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def why_no_kernels(device: str, interpreted: bool = True) -> str | None:
    """Why the kernels cannot run on a type of device, in words; None where they can.

    Args:
        device: The type of the device.
        interpreted: Whether Triton's interpreter counts, which is thousands of times as slow.
    """
    version = _version()
    if version is None:
        return 'triton is not installed'
    if not VERSIONS.contains(version, prereleases=True):
        return f'triton {version} is installed, they need triton{VERSIONS}'
    interpreted = interpreted and os.environ.get('TRITON_INTERPRET') == '1'
    if device != 'cuda' and not interpreted:
        return f'they need a GPU, the device is {device}'
    return None


@lru_cache  # asked in every forward pass of every block
def _version() -> str | None:
    try:
        return metadata.version('triton')
    except metadata.PackageNotFoundError:
        return None
