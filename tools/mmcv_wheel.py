#!/usr/bin/env python
"""Where a compiled wheel of mmcv for this environment can be had, for the set-up.

OpenMMLab compiles mmcv for torch up to 2.1 (mmcv 2.1.0) and 2.4 (mmcv 2.2.0, which mmdet refuses);
the OneDL forks do so for newer ones.
"""

import sys
import urllib.error
import urllib.request

import torch

INDEX = {
    'mmcv': 'https://download.openmmlab.com/mmcv/dist/{build}/torch{major}.{minor}.0/index.html',
    'onedl-mmcv': 'https://mmwheels.onedl.ai/{build}-torch{major}{minor}{patch}/simple/onedl-mmcv/',
}


def index_of(name: str, torch_version: str, cuda: str | None) -> str:
    """The page that lists the wheels of a package for a build of torch.

    Args:
        name: mmcv or onedl-mmcv.
        torch_version: torch's own, such as ``2.1.2+cu121``.
        cuda: The version of CUDA that torch was built with; None for a CPU build.
    """
    major, minor, patch = torch_version.partition('+')[0].split('.')[:3]
    build = 'cpu' if cuda is None else 'cu' + cuda.replace('.', '')
    return INDEX[name].format(build=build, major=major, minor=minor, patch=patch)


def wheel_tag(name: str, version: str, python: tuple[int, int]) -> str:
    """How the file name of the wheel begins."""
    tag = f'cp{python[0]}{python[1]}'
    return f'{name.replace("-", "_")}-{version}-{tag}-{tag}-'


def main(pin: str) -> None:
    """Print the page if it has the wheel of a pin, such as ``mmcv==2.1.0``, else nothing."""
    name, version = pin.split('==')
    page = index_of(name, torch.__version__, torch.version.cuda)
    try:
        with urllib.request.urlopen(page, timeout=10) as answer:
            listed = answer.read().decode(errors='replace')
    except (urllib.error.URLError, TimeoutError):
        return  # mmcv is compiled then
    if wheel_tag(name, version, sys.version_info[:2]) in listed:
        print(page)


if __name__ == '__main__':
    main(*sys.argv[1:])
