"""Metadata of mmse; every version pin is read from ``requirements/``."""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What users run; the rest of tools/ is for the repository.
TOOLS = (
    *('train.py', 'test.py', 'ablate.py', 'benchmark.py', 'convert_weights.py'),
    *('export_detector.py', 'export_onnx.py', 'inspect_gates.py', 'predict.py', 'prepare_data.py'),
)


def requirements(name: str, *only: str) -> list[str]:
    """Read one file of ``requirements/``.

    Args:
        name: File name without ``.txt``.
        only: Distributions to keep, in the order of the file; all of them if none is given.
    """
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    specs = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    return [spec for spec in specs if not only or spec.partition('==')[0] in only]


class BuildWithMim(build_py):
    """Puts configs, tools and the model index into the build, where MMEngine and MIM look for them.

    The source tree stays as it is, and an editable installation has no copies: it reads the
    repository's own.
    """

    def mim_files(self) -> dict[str, str]:
        """Where each file goes in the build, and the file in the repository."""
        configs = [p for p in (ROOT / 'configs').rglob('*') if p.suffix in ('.py', '.yml')]
        files = [ROOT / 'model-index.yml', *(ROOT / 'tools' / name for name in TOOLS), *configs]
        names = sorted(str(file.relative_to(ROOT)) for file in files)
        return {os.path.join(self._mim_folder(), name): name for name in names}

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        # A config that has been moved since the last build would be there twice.
        shutil.rmtree(self._mim_folder(), ignore_errors=True)
        for target, source in self.mim_files().items():
            self.mkpath(os.path.dirname(target))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return list(dict.fromkeys([*super().get_outputs(include_bytecode), *self.mim_files()]))

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self.mim_files()}

    def _mim_folder(self) -> str:
        return os.path.join(self.build_lib, 'mmse', '.mim')


# torch and the OpenMMLab packages are extras, never install_requires: pip would otherwise lay one
# stack over the other, both of which have the same import names.
setup(
    name='mmse',
    version=runpy.run_path(str(ROOT / 'mmse' / 'version.py'))['__version__'],
    description='Channel attention in the backbones of MMDetection and MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10,<3.13',
    cmdclass={'build_py': BuildWithMim},
    packages=find_packages(include=['mmse', 'mmse.*']),
    package_data={
        name: ['templates/*.jinja'] for name in ('mmse.ablation', 'mmse.gates', 'mmse.pages')
    },
    install_requires=requirements('runtime'),
    extras_require={
        # mmseg imports ftfy and regex and does not declare them.
        'openmmlab': requirements('openmmlab') + requirements('libraries', 'ftfy', 'regex'),
        'onedl': requirements('onedl'),
        'mmdet': requirements('openmmlab', 'mmdet'),
        'mmseg': requirements('openmmlab', 'mmsegmentation')
        + requirements('libraries', 'ftfy', 'regex'),
        'ray': [spec.partition('==')[0] for spec in requirements('ray')],
        'onnx': sorted(
            {
                spec.partition('==')[0]
                for spec in requirements('dev', 'onnx', 'onnxruntime', 'onnxscript')
            }
        ),
        'dev': requirements('dev'),
    },
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
