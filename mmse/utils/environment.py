"""What numbers depend on besides code: packages, Python, processor and GPU."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import torch

OPENMMLAB = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation')
ONEDL = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')
# The distributions whose versions can change a result.
SHAPING = ('torch', 'numpy', *OPENMMLAB, *ONEDL)


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def python_version() -> str:
    """Python's major and minor version, such as ``3.11``."""
    return '.'.join(platform.python_version_tuple()[:2])


def gpu_name() -> str | None:
    """Name of the current CUDA device; None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def processor() -> str:
    """Name of the CPU."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            return next(line.split(':')[1].strip() for line in file if 'model name' in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
