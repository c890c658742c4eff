"""``python -m mmse env`` prints what a bug report needs to know about a machine."""

import argparse
import importlib
import platform
import sys
from pathlib import Path

import torch

from mmse.utils.environment import ONEDL, OPENMMLAB, versions

PACKAGES = (
    *('mmse', 'torch', 'torchvision', 'numpy', 'opencv-python', 'opencv-python-headless'),
    *(*OPENMMLAB, 'mmpretrain', *ONEDL, 'timm', 'ray', 'onnx', 'onnxruntime'),
)
STACKS = {'OpenMMLab': 'mmengine', 'OneDL': 'onedl-mmengine'}
# Packages with compiled parts, which fail at import when they were built for another torch, and
# what is built on them.
IMPORTS = ('torchvision', 'mmcv.ops', 'mmdet.apis', 'mmseg.apis', 'mmse.models')


def report() -> str:
    """Versions, what can be imported, and the devices, one per line."""
    installed = versions(PACKAGES)
    stacks = [name for name, package in STACKS.items() if package in installed]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return '\n'.join(
        [
            f'system: {platform.platform()}',
            f'python: {sys.version.split()[0]}',
            *(f'{name}: {number}' for name, number in installed.items()),
            f'stack: {" and ".join(stacks) or "none"}',
            *(f'import {name}: {_try(name)}' for name in IMPORTS),
            f'installed at: {Path(__file__).parent}',
            f'torch threads: {torch.get_num_threads()}',
            f'CUDA of torch: {torch.version.cuda}',
            f'GPUs: {", ".join(gpus) or "none"}',
        ]
    )


def _try(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:  # how the import fails is what the report is for
        return f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    return 'ok'


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m mmse')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('env', help='print what a bug report needs to know about this machine')
    parser.parse_args()
    print(report())


if __name__ == '__main__':
    main()
