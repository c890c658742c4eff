"""Metadata of mmse; every version pin is read from ``requirements/``."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str, *only: str) -> list[str]:
    """Read one file of ``requirements/``.

    Args:
        name: File name without ``.txt``.
        only: Distributions to keep, in the order of the file; all of them if none is given.
    """
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    specs = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    return [spec for spec in specs if not only or spec.partition('==')[0] in only]


# torch and the OpenMMLab packages are extras, never install_requires: pip would otherwise lay one
# stack over the other, both of which have the same import names.
setup(
    name='mmse',
    version=runpy.run_path(str(ROOT / 'mmse' / 'version.py'))['__version__'],
    description='Channel attention in the backbones of MMDetection and MMSegmentation',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['mmse', 'mmse.*']),
    package_data={name: ['templates/*.jinja'] for name in ('mmse.ablation', 'mmse.gates')},
    install_requires=requirements('runtime'),
    extras_require={
        # mmseg imports ftfy and regex and does not declare them.
        'openmmlab': requirements('openmmlab') + requirements('libraries', 'ftfy', 'regex'),
        'onedl': requirements('onedl'),
        'mmdet': requirements('openmmlab', 'mmdet'),
        'mmseg': requirements('openmmlab', 'mmsegmentation')
        + requirements('libraries', 'ftfy', 'regex'),
        'ray': [spec.partition('==')[0] for spec in requirements('ray')],
        'onnx': [
            spec.partition('==')[0]
            for spec in requirements('dev', 'onnx', 'onnxruntime', 'onnxscript')
        ],
        'dev': requirements('dev'),
    },
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
