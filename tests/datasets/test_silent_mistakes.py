"""Data that would be trained or scored as something else without a word."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS
from support.data_checks import check, detection, edit, write_coco
from support.labelling_tools import (
    NAMES,
    Splits,
    coco,
    configure,
    cvat_masks,
    save,
    scenes,
    voc,
    write_list,
)

from mmse.datasets import cache
from mmse.datasets.check import check_data
from mmse.datasets.voc import prepare_voc
from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.utils.errors import UserError

pytest.importorskip('mmdet')
SEGMENTER, DETECTOR = 'camvid/fcn_se_r50_camvid.py', 'bccd/faster_rcnn_se_r50_bccd.py'


@pytest.fixture(scope='module')
def splits() -> Splits:
    return scenes()


def maps(name: str) -> dict[str, str]:
    return {'img': f'{name}/JPEGImages', 'seg_map': f'{name}/SegmentationClass'}


@pytest.mark.parametrize('other', ['train', 'val'])
def test_class_lists_of_two_exports_that_disagree(
    other: str, splits: Splits, tmp_path: Path
) -> None:
    """CVAT lists the classes of one task, in the order of their names."""
    cvat_masks(tmp_path / 't1', splits, NAMES[:2])
    cvat_masks(tmp_path / 't2', splits, (NAMES[2], *NAMES[:2]))
    own: dict[str, Any] = {'train': [maps('t1')], 'val': maps('t1')}
    own[other] = [maps('t1'), maps('t2')] if other == 'train' else maps('t2')
    with pytest.raises(UserError, match=rf'label 1 is {NAMES[0]} in .*t1.* and {NAMES[2]} in .*t2'):
        configure(tmp_path, SEGMENTER, own)


def test_a_class_list_may_go_on_where_another_ends(splits: Splits, tmp_path: Path) -> None:
    cvat_masks(tmp_path / 't1', splits, NAMES)
    cvat_masks(tmp_path / 't2', splits, (*NAMES, 'more'))
    cfg = configure(tmp_path, SEGMENTER, {'train': [maps('t1'), maps('t2')], 'val': maps('t1')})
    assert cfg.model.decode_head.num_classes == 1 + len(NAMES) + 1


def test_a_colour_of_two_classes(splits: Splits, tmp_path: Path) -> None:
    own = cvat_masks(tmp_path, splits, NAMES)
    with (tmp_path / 'labelmap.txt').open('a') as file:
        file.write('lorry:51,221,255::\n')
    with pytest.raises(UserError, match=r'labelmap\.txt: a colour stands for several .*51, 221'):
        configure(tmp_path, SEGMENTER, own)


def test_classes_are_counted_over_the_maps_that_are_trained(splits: Splits, tmp_path: Path) -> None:
    for picture in splits['train']:
        save(tmp_path, f'img/{picture.name}.jpg', picture.image)
        labels = np.minimum(picture.label_map(), 2)
        save(tmp_path, f'ann/{picture.name}.png', labels)
        save(tmp_path, f'ann/{picture.name}_instances.png', labels * 4)
        save(tmp_path, f'ann/{picture.name}_color.png', picture.image)
    part = {'img': 'img', 'seg_map': 'ann'}
    cfg = configure(tmp_path, SEGMENTER, {'train': part, 'val': part})
    assert cfg.model.decode_head.num_classes == 3
    assert check_data(cfg, 'train')


def write_voc(root: Path, boxes: list[list[float]], size: tuple[int, int] = (60, 40)) -> None:
    """One image of 60x40 in the layout of VOC, with these corners."""
    save(root, 'JPEGImages/a.jpg', np.zeros((40, 60, 3), np.uint8))
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    objects = [
        '<object><name>cell</name><bndbox>'
        + ''.join(f'<{k}>{v}</{k}>' for k, v in zip(keys, box, strict=True))
        + '</bndbox></object>'
        for box in boxes
    ]
    given = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>'
    (root / 'Annotations').mkdir(parents=True, exist_ok=True)
    text = f'<annotation>{given}{"".join(objects)}</annotation>'
    (root / 'Annotations/a.xml').write_text(text)
    write_list(root / 'ImageSets/Main/train.txt', ['a'])


def converted(root: Path) -> dict[str, Any]:
    prepare_voc(root, root.with_name('coco'))
    file = root.with_name('coco') / 'annotations/instances_train.json'
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.parametrize(
    ('corners', 'labelmap', 'box'),
    [
        ([11, 6, 30, 25], False, [10, 5, 20, 20]),  # VOC: pixels 11 to 30, counted from 1
        ([10, 5, 30, 25], True, [10, 5, 20, 20]),  # CVAT: edges
        ([10.5, 5, 30, 25], False, [10.5, 5, 19.5, 20]),
        ([0, 5, 30, 25], False, [0, 5, 30, 20]),
    ],
)
def test_where_boxes_of_voc_are_counted_from(
    corners: list[float], labelmap: bool, box: list[float], tmp_path: Path
) -> None:
    write_voc(tmp_path / 'voc', [corners])
    if labelmap:
        write_list(tmp_path / 'voc/labelmap.txt', ['cell:9,9,9::'])
    (found,) = converted(tmp_path / 'voc')['annotations']
    assert found['bbox'] == box


@pytest.mark.parametrize('size', [(120, 80), (40, 60)])
def test_images_of_voc_that_were_scaled_or_turned_since(
    size: tuple[int, int], tmp_path: Path
) -> None:
    write_voc(tmp_path / 'voc', [[2, 3, 35, 30]], size)
    (image,) = converted(tmp_path / 'voc')['images']
    assert (image['width'], image['height']) == size
    part = {'ann_file': 'annotations/instances_train.json', 'img': 'train'}
    cfg = configure(tmp_path / 'coco', DETECTOR, {'train': part, 'val': part})
    with pytest.raises(UserError, match='size'):
        check_data(cfg, 'train')


def test_lists_of_names_of_voc(splits: Splits, tmp_path: Path) -> None:
    root = tmp_path / 'voc'
    voc(root, splits, NAMES)
    first = splits['train'][0].name
    for folder, ending in (('JPEGImages', 'jpg'), ('Annotations', 'xml')):
        (root / folder / f'{first}.{ending}').rename(root / folder / f'IMG (1).{ending}')
    names = ['IMG (1)', *(p.name for p in splits['train'][1:])]
    listing = root / 'ImageSets/Main/train.txt'
    listing.write_text('\ufeff' + '\n'.join(names), encoding='utf-8')
    for name in ('IMG (1).xml', f'{names[1]}.txt'):  # tools that save beside the image
        (root / 'JPEGImages' / name).write_text('')
    assert prepare_voc(root, tmp_path / 'coco')['train']['images'] == len(names)
    listing.write_bytes('größe'.encode('cp1252'))
    with pytest.raises(UserError, match=r'train\.txt is not in UTF-8: save it as UTF-8'):
        prepare_voc(root, tmp_path / 'other')
    write_list(listing, names)
    save(root, f'JPEGImages/{names[1]}.png', splits['train'][1].image)
    with pytest.raises(UserError, match=rf'{names[1]}\.jpg and .*{names[1]}\.png have one name'):
        prepare_voc(root, tmp_path / 'other')


def test_crowds_without_a_mask_end_a_training_of_masks(tmp_path: Path) -> None:
    write_coco(tmp_path, edit('annotations', 1, iscrowd=1, segmentation=[]))
    assert check(detection(tmp_path))  # boxes alone
    loading = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_mask': True}]
    with pytest.raises(UserError, match=r'objects have no mask \(segmentation\)'):
        check(detection(tmp_path, pipeline=[*loading, {'type': 'PackDetInputs'}]))


def test_scores_of_classes_whose_ids_do_not_rise(splits: Splits, tmp_path: Path) -> None:
    content = coco(splits['val'], NAMES)
    old = [category['id'] for category in content['categories']]
    ids = dict(zip(old, (7, 3, 12, 5), strict=True))
    for category in content['categories']:
        category['id'] = ids[category['id']]
    for annotation in content['annotations']:
        annotation['category_id'] = ids[annotation['category_id']]
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    own = {split: {'ann_file': 'ann.json', 'img': '.'} for split in splits}
    cfg = configure(tmp_path, DETECTOR, own)
    assert cfg.val_evaluator.type == 'mmdet.CocoMetric'  # without scores of classes all is well
    with (tmp_path / 'mine.py').open('a') as file:
        file.write('val_evaluator = dict(classwise=True)\n')
    cfg = load_config(str(tmp_path / 'mine.py'))
    assert cfg.val_evaluator.type == 'mmse.CocoMetric'
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = {'classes': NAMES}
    for number, picture in enumerate(splits['val'], start=1):
        # Only the first class is ever found.
        own_boxes = [box for label, box in picture.boxes() if label == 0]
        corners = torch.tensor(own_boxes, dtype=torch.float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        found = {
            'bboxes': corners,
            'labels': torch.zeros(len(corners), dtype=torch.long),
            'scores': torch.ones(len(corners)),
        }
        sample = {
            'img_id': number,
            'ori_shape': picture.image.shape[:2],
            'pred_instances': found,
        }
        metric.process({}, [sample])
    scores = metric.evaluate(len(splits['val']))
    of_class = {name: scores[f'coco/{name}_precision'] for name in NAMES}
    assert of_class == {name: float(name == NAMES[0]) for name in NAMES}
    theirs = {**cfg.val_evaluator, 'type': 'mmdet.CocoMetric'}
    with pytest.raises(UserError, match=r'do not rise \(7, 3, 12 and 1 more\), and COCOeval'):
        check_data(cfg, 'val', [theirs])
    with pytest.raises(UserError, match='leave out classwise or outfile_prefix'):
        METRICS.build({**cfg.val_evaluator, 'outfile_prefix': str(tmp_path / 'out')})


def test_images_that_are_trained_and_scored(
    splits: Splits, tmp_path: Path, logged_warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, 'folder', lambda: tmp_path / 'kept')
    voc(tmp_path, splits, NAMES)
    part = {'img': 'JPEGImages', 'seg_map': 'SegmentationClass'}
    lists = {s: part | {'ann_file': f'ImageSets/Segmentation/{s}.txt'} for s in splits}
    both = {**lists, 'train': part | {'ann_file': 'both.txt'}}
    write_list(tmp_path / 'both.txt', [p.name for of in splits.values() for p in of[:3]])
    for own, count in ((lists, 0), (both, 1), (both, 1)):  # the last from an earlier check
        logged_warnings.clear()
        preflight(configure(tmp_path, SEGMENTER, own), ('train', 'val'), whole_checkpoint=False)
        said = [line for line in logged_warnings if 'trained on as well' in line]
        assert len(said) == count
        if count:
            assert said[0].startswith(f'val data: 3 of {len(splits["val"])} images are trained on')


def test_a_check_does_not_outlive_the_users_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, 'folder', lambda: tmp_path / 'kept')
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / 'own_set.py'
    own.write_text(
        'from mmdet.datasets import CocoDataset\n'
        'from mmdet.registry import DATASETS\n'
        '@DATASETS.register_module()\n'
        'class OwnSet(CocoDataset):\n'
        '    pass\n'
    )
    write_coco(tmp_path)
    __import__('own_set')
    dataset = {**detection(tmp_path), 'type': 'OwnSet'}
    assert not check(dataset).summary.endswith('(from an earlier check)')
    assert check(dataset).summary.endswith('(from an earlier check)')
    own.write_text(own.read_text() + '# changed\n')
    assert not check(dataset).summary.endswith('(from an earlier check)')
    DATASETS.module_dict.pop('OwnSet', None)
