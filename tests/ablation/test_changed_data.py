"""A study whose data changed says so and runs anew; what was trained before stays and is named."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from support.ablations import trials, write_study
from support.engine import IN_PROCESS, SHAPES
from support.simulated_study import OF_NO_TRAINING

from mmse.ablation.folders import Folders
from mmse.ablation.records import FinishedTrial
from mmse.ablation.report import status_table, write_report
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.trial import Assignment
from mmse.ablation.variants import resolve
from mmse.datasets.scenes import CLASSES
from mmse.datasets.shapes import SEG_CLASSES, ensure_shapes

pytest_plugins = ('support.engine_fixtures',)


def seg_data(root: Path, split: str) -> dict[str, Any]:
    return {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': split, 'seg_map_path': f'semantic/{split}'},
        'metainfo': {'classes': SEG_CLASSES},
        'pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
            {'type': 'PackSegInputs'},
        ],
    }


def det_data(root: Path, split: str) -> dict[str, Any]:
    return {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': f'annotations/instances_{split}.json',
        'data_prefix': {'img': split},
        'metainfo': {'classes': CLASSES},
        'pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True},
            {'type': 'PackDetInputs'},
        ],
    }


def correct_a_label(root: Path) -> None:
    """In place, by a file of the same size."""
    file = root / 'semantic/train/000000.png'
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    plain = [cv2.IMWRITE_PNG_COMPRESSION, 0]
    cv2.imwrite(str(file), labels, plain)
    size = file.stat().st_size
    cv2.imwrite(str(file), np.where(labels == 0, 1, labels), plain)
    assert file.stat().st_size == size


def replace_an_image(root: Path) -> None:
    file = root / 'val/000001.jpg'
    cv2.imwrite(str(file), 255 - cv2.imread(str(file)), [cv2.IMWRITE_JPEG_QUALITY, 80])


def correct_an_annotation(root: Path) -> None:
    file = root / 'annotations/instances_train.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['category_id'] = 1 + content['annotations'][0]['category_id'] % 6
    file.write_text(json.dumps(content))


def untrained(folders: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    """An engine whose trials finish at once."""
    for folder in folders:
        assignment = Assignment.from_config(Config.fromfile(folder / 'config.py'))
        FinishedTrial(
            **asdict(assignment.head),
            **OF_NO_TRAINING,
            metrics={assignment.metric: 0.5},
            curves={assignment.metric: [[8, 0.5]]},
        ).write(Path(assignment.record))
        yield folder, 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'change'),
    [
        ('seg', correct_a_label),
        ('seg', replace_an_image),
        ('det', correct_an_annotation),
        ('det', replace_an_image),
    ],
)
def test_a_study_whose_data_changed_runs_anew_and_says_so(
    kind, change, tiny_configs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    root = tmp_path / 'data'
    ensure_shapes(root, **SHAPES)
    data = {'seg': seg_data, 'det': det_data}[kind]
    overrides: dict[str, Any] = {
        f'{split}_dataloader.dataset': {'_delete_': True, **data(root, split)}
        for split in ('train', 'val')
    }
    if kind == 'det':
        overrides['val_evaluator.ann_file'] = str(root / 'annotations/instances_val.json')
    metric = {'seg': 'mIoU', 'det': 'coco/bbox_mAP'}[kind]
    file = write_study(
        tmp_path, tiny_configs[kind], metric=metric, overrides={**IN_PROCESS, **overrides}
    )
    study = read_study(file)
    folders = Folders(tmp_path / 'results', tmp_path / 'work')
    assert run(study, resolve(study), folders, untrained) == []
    before = trials(tmp_path)
    assert run(study, resolve(study), folders, untrained) == []
    out = capsys.readouterr().out
    assert '4 trials, 4 finished before' in out
    assert 'data have changed' not in out

    change(root)
    assert run(study, resolve(study), folders, untrained) == []
    out = capsys.readouterr().out
    assert '4 trials, 0 finished before' in out
    assert 'the data have changed since these 4 trials ended' in out
    assert all(f'\n  {name}\n' in out for name in before)
    after = trials(tmp_path)
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    left_out = '4 trials left out: their data have changed since'
    assert left_out in status_table(folders.results)
    summary = write_report(folders.results)
    assert {trial.id for trial in summary.records} == set(after) - set(before)
    assert left_out in (folders.results / 'report.md').read_text()
