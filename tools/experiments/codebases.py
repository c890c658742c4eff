"""Which OpenMMLab codebases can have the attention, by their own configs.

Each codebase is installed into a folder, without what it depends on but with what it imports, and
its configs are judged in a process of their own: are the ResNets swapped or refused by a sentence,
does the swapped model build, are its maps equal to the original's with attention off, and does one
training step reach every parameter of the attention? ``results/codebases.json`` holds all findings,
and the tables of docs/codebases.md are written from it.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from mmse.utils.environment import python_version, versions
from mmse.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / 'results' / 'codebases.json'
PAGE = ROOT / 'docs' / 'codebases.md'
BEGIN, END = '<!-- written by tools/experiments/codebases.py -->', '<!-- to here -->'


class Codebase(NamedTuple):
    """One codebase.

    Args:
        package: Its import name.
        distribution: What to install.
        imports: Distributions that it needs at import, besides those of ``make setup``.
        steps: Configs to train for a step; a path of this repository, or one of its own.
        loosened: What keeps it from being imported as it is, and what was done about it.
    """

    package: str
    distribution: str
    imports: tuple[str, ...]
    steps: tuple[str, ...]
    loosened: str = 'nothing'


CODEBASES = (
    Codebase(
        'mmpretrain',
        'mmpretrain==1.2.0',
        ('-r', str(ROOT / 'requirements' / 'peers.txt')),
        (
            'resnet/resnet50_8xb32_in1k.py',
            'resnext/resnext50-32x4d_8xb32_in1k.py',
            'simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py',
            'mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py',
        ),
    ),
    Codebase(
        'mmpose',
        'mmpose==1.3.2',
        ('json_tricks==3.17.3', 'munkres==3.0.0'),
        (
            'body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py',
            'body_2d_keypoint/simcc/coco/simcc_res50_8xb64-210e_coco-256x192.py',
            'body_2d_keypoint/topdown_regression/coco/td-reg_res50_rle-8xb64-210e_coco-256x192.py',
        ),
        'wheels of xtcocotools are built for numpy 1: pycocotools in its place',
    ),
    Codebase(
        'mmrotate',
        'mmrotate-dev==1.0.1',
        (),
        (
            'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py',
            'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py',
            'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py',
        ),
    ),
    Codebase(
        'mmdet3d',
        'mmdet3d==1.4.0',
        (
            *('numba==0.68.1', 'llvmlite==0.50.0', 'nuscenes-devkit==1.2.0', 'trimesh==5.2.0'),
            *('lyft_dataset_sdk==0.0.8', 'pyquaternion==0.9.9', 'plyfile==1.1.5'),
            'cachetools==8.0.2',
        ),
        (
            'fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py',
            'pgd/pgd_r101-caffe_fpn_head-gn_4xb3-4x_kitti-mono3d.py',
        ),
    ),
    Codebase(
        'mmyolo',
        'mmyolo==0.6.0',
        (),
        ('tools/experiments/yolov5_r50.py',),
        'asserts mmcv < 2.1: 2.0.1 was claimed',
    ),
    Codebase(
        'mmocr',
        'mmocr==1.0.1',
        (
            *('lmdb==3.0.0', 'pyclipper==1.4.0', 'rapidfuzz==3.14.6', 'scikit-image==0.26.0'),
            *('lazy-loader==0.6', 'imageio==2.38.1', 'tifffile==2026.3.3', 'networkx==3.6.1'),
        ),
        (
            'textdet/dbnet/dbnet_resnet18_fpnc_1200e_icdar2015.py',
            'textdet/psenet/psenet_resnet50_fpnf_600e_icdar2015.py',
            'textdet/fcenet/fcenet_resnet50_fpn_1500e_icdar2015.py',
        ),
        'asserts mmdet < 3.2: 3.1.0 was claimed',
    ),
    Codebase(
        'mmaction',
        'mmaction2==1.2.0',
        (),
        (),
        'its wheel lacks `models/localizers/drn`: an empty module in its place',
    ),
)


def install(codebase: Codebase, folder: Path) -> None:
    """Install a codebase into a folder, unless it is there."""
    if not (folder / codebase.package).is_dir():
        pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        wanted = [codebase.distribution, *codebase.imports]
        subprocess.run([*pip, '--no-deps', '--target', folder, *wanted], check=True)


def judge(codebase: Codebase, folder: Path, limit: int) -> dict[str, Any]:
    """The findings of ``one_codebase.py``, or why there are none.

    Args:
        codebase: The codebase.
        folder: Where it is installed.
        limit: Swap the ResNets of this many configs at most; 0 for all.
    """
    steps = [str(ROOT / s) if s.startswith('tools/') else s for s in codebase.steps]
    done = subprocess.run(
        [sys.executable, HERE / 'one_codebase.py', codebase.package, folder, str(limit), *steps],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {'failed': done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, 'steps': dict(zip(codebase.steps, found['steps'].values(), strict=True))}


def tables(results: dict[str, Any]) -> str:
    """The tables of the page."""
    lines = [
        '| codebase | configs with a ResNet | swapped | refused | built | equal, attention off '
        '| training steps | to import it |',
        '|---|---:|---:|---:|---:|---:|---:|---|',
    ]
    notes = []
    for codebase in CODEBASES:
        found = results['codebases'].get(codebase.package)
        if found is None:
            continue
        if 'failed' in found:
            lines.append(f'| {codebase.distribution} | | | | | | | {found["failed"]} |')
            continue
        passed = sum(_passed(step) for step in found['steps'].values())
        equal = sum(why is None for why in found['verdicts'].values())
        lines.append(
            f'| {codebase.package} {found["version"]} | {found["swapped"] + len(found["refused"])} '
            f'| {found["swapped"]} | {len(found["refused"])} '
            f'| {found["swapped"] - len(found["not_built"])} of {found["swapped"]} '
            f'| {equal} of {len(found["verdicts"])} | {passed} of {len(found["steps"])} '
            f'| {codebase.loosened} |'
        )
        notes += [f'| {codebase.package} | {n} | {what} |' for what, n in _exceptions(found)]
    heading = ['', '| codebase | configs | what was refused or failed |', '|---|---:|---|']
    return '\n'.join([*lines, *heading, *notes])


def _passed(step: dict[str, Any]) -> bool:
    return 'failed' not in step and step['trained'] == step['with_gradient'] > 0


def _exceptions(found: dict[str, Any]) -> list[tuple[str, int]]:
    """What did not work, each kind once, with the number of configs."""
    kinds = Counter(
        f'{what}: {one["why"]}' + ('; nor does the original build' if one['original'] else '')
        for what, ones in (
            ('refused', found['refused']),
            ('not built', found['not_built'].values()),
        )
        for one in ones
    )
    kinds.update(f'not read: {why}' for why, n in found['unread'].items() for _ in range(n))
    kinds.update(f'not equal: {why}' for why in found['verdicts'].values() if why)
    for name, step in found['steps'].items():
        if not _passed(step):
            kinds[f'training step of {name}: {step.get("failed", step)}'] += 1
    return kinds.most_common()


def write_page(results: dict[str, Any]) -> None:
    """Put the tables into the page, between the marks."""
    before, rest = PAGE.read_text(encoding='utf-8').split(BEGIN)
    after = rest.split(END)[1]
    write_text(PAGE, f'{before}{BEGIN}\n{tables(results)}\n{END}{after}')


def main() -> None:
    parser = argparse.ArgumentParser(description='Try the attention in every OpenMMLab codebase')
    parser.add_argument('--folder', type=Path, help='where to install the codebases')
    parser.add_argument(
        '--only', nargs='+', choices=[c.package for c in CODEBASES], help='these codebases'
    )
    parser.add_argument('--limit', type=int, default=0, help='this many swaps a codebase at most')
    parser.add_argument('--out', type=Path, default=RESULTS, help='the JSON file')
    args = parser.parse_args()
    results = read_json(args.out) if args.out.exists() else {'codebases': {}}
    for codebase in CODEBASES if args.folder else ():
        if args.only is None or codebase.package in args.only:
            folder = args.folder / codebase.package
            install(codebase, folder)
            results['codebases'][codebase.package] = judge(codebase, folder, args.limit)
            results['python'] = python_version()
            results['versions'] = versions(('torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation'))
            write_json(args.out, results)
    if args.out == RESULTS:
        write_page(results)
    print(tables(results))


if __name__ == '__main__':
    main()
