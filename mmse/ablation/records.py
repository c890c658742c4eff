"""What is on disk of an ablation: the plan, one file a trial, and which of them belong together."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmse.ablation.plan import Variant
from mmse.ablation.study import Study
from mmse.utils.errors import UserError

PACKAGES = (
    *('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation'),
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation'),
)
Record = dict[str, Any]


def write_json(path: Path, what: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(json.dumps(what, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    part.replace(path)


def environment() -> dict[str, str]:
    """What the numbers of a trial depend on besides its config and our code."""
    versions = {'python': '.'.join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    return {**versions, 'device': torch.cuda.get_device_name() if cuda else 'CPU'}


def write_plan(folder: Path, study: Study, variants: Iterable[Variant]) -> list[str]:
    """Write the question into the folder of its results, once for each form that it takes.

    A contrast is confirmatory if it stood in the plan before the first trial ended, with the same
    metrics and smallest effects; one that is added or changed later is exploratory.

    Returns:
        The names of contrasts that are exploratory because they came late.
    """
    old = read_plan(folder) if (folder / 'plan.json').is_file() else None
    started = any((folder / 'trials').glob('*.json'))
    plan: Record = {
        'name': study.name,
        'start': study.start,
        'seeds': study.seeds,
        'tasks': [
            {key: getattr(task, key) for key in ('name', 'base', 'metric', 'smallest_effect')}
            for task in study.tasks
        ],
        'arms': [{'name': arm.name, 'levels': dict(arm.levels)} for arm in study.arms],
        'factors': dict(study.factors),
        'contrasts': [
            {
                'name': contrast.name,
                'weights': dict(contrast.weights),
                'description': contrast.description,
                'registered': True,
            }
            for contrast in study.contrasts
        ],
        'variants': [
            {
                'task': v.task.name,
                'arm': v.arm.name,
                'recipe': v.recipe,
                'attention': v.attention,
                'config': v.cfg.pretty_text,
            }
            for v in variants
        ],
    }
    if old and started:
        for contrast in plan['contrasts']:
            same_question = old['tasks'] == plan['tasks'] and contrast in old['contrasts']
            contrast['registered'] = same_question
    write_json(folder / 'plan.json', plan)
    return [c['name'] for c in plan['contrasts'] if not c['registered']]


def read_plan(folder: Path) -> Record:
    """The plan that the trials of a folder were run for.

    Raises:
        UserError: There is none.
    """
    file = folder / 'plan.json'
    if not file.is_file():
        raise UserError(f'{folder} has no plan.json: run the ablation first (tools/ablate.py run)')
    plan: Record = json.loads(file.read_text(encoding='utf-8'))
    return plan


def read_trials(folder: Path) -> list[Record]:
    """Every trial file of a folder, in the order of their names."""
    records = []
    for file in sorted((folder / 'trials').glob('*.json')):
        try:
            records.append(json.loads(file.read_text(encoding='utf-8')))
        except json.JSONDecodeError as error:
            raise UserError(f'{file} is not a trial file ({error}): remove it') from error
    return records


def comparable(
    plan: Mapping[str, Any], records: Iterable[Record]
) -> tuple[list[Record], list[str]]:
    """The trials that may be compared with each other, and what was left out.

    Trials of another recipe than the plan's are of another question. Of the rest, those that the
    same code made in the same environment belong together; the largest such group is taken.

    Returns:
        The finished trials of that group, and one line for each other group.
    """
    recipes = {(v['task'], v['arm']): v['recipe'] for v in plan['variants']}
    groups: dict[tuple[str, str], list[Record]] = {}
    left: dict[str, int] = {}
    for record in records:
        key = record['task'], record['arm']
        if recipes.get(key) != record['recipe'] or record['seed'] not in plan['seeds']:
            reason = 'another config, arm or seed than the plan has now'
            left[reason] = left.get(reason, 0) + 1
        elif record['status'] == 'finished':
            provenance = json.dumps(record['environment'], sort_keys=True)
            groups.setdefault((record['code'], provenance), []).append(record)
    ordered = sorted(groups.items(), key=lambda item: len(item[1]))
    chosen = ordered.pop()[1] if ordered else []
    for (code, provenance), records_there in ordered:
        which = f'code {code}, environment {provenance}'
        left[which] = len(records_there)
    return chosen, [f'{count} trials left out: {reason}' for reason, count in left.items()]
