"""``python -m mmse env``: what a bug report needs to know of a machine."""

import argparse
import importlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *('mmse', 'torch', 'torchvision', 'numpy', 'opencv-python', 'opencv-python-headless'),
    *('mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpretrain'),
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation'),
    *('timm', 'ray', 'onnx', 'onnxruntime'),
)
STACKS = {'OpenMMLab': 'mmengine', 'OneDL': 'onedl-mmengine'}
# What fails in its own way when it was built for another torch.
IMPORTS = ('torchvision', 'mmcv.ops', 'mmdet.apis', 'mmseg.apis', 'mmse.models')


def report() -> str:
    """Versions, what imports, and the devices, one line each."""
    lines = [f'system: {platform.platform()}', f'python: {sys.version.split()[0]}']
    found = {name: _version(name) for name in PACKAGES}
    lines += [f'{name}: {found[name]}' for name in PACKAGES if found[name]]
    stacks = [name for name, key in STACKS.items() if found[key]]
    lines.append(f'stack: {" and ".join(stacks) or "none"}')
    lines += [f'import {name}: {_try(name)}' for name in IMPORTS]
    lines.append(f'installed at: {Path(__file__).parent}')
    return '\n'.join([*lines, *_devices()])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _try(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # that it fails, and how, is what the report is for
        return f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    return 'ok'


def _devices() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    lines = [f'torch threads: {torch.get_num_threads()}', f'CUDA of torch: {torch.version.cuda}']
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*lines, f'GPUs: {", ".join(gpus) or "none"}']


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m mmse')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('env', help='print what a bug report needs to know of this machine')
    parser.parse_args()
    print(report())


if __name__ == '__main__':
    main()
