"""Exports of labelling tools: what a config's data sets yield is what was labelled."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS
from support.labelling_tools import (
    COCO,
    MASKS,
    NAMES,
    Splits,
    coco,
    configure,
    label_studio_coco,
    save,
    scenes,
    voc,
)

from mmse.datasets.check import check_data
from mmse.datasets.voc import prepare_voc
from mmse.utils.errors import UserError


@pytest.fixture(scope='module')
def splits() -> Splits:
    return scenes()


@pytest.mark.parametrize('write', COCO)
def test_boxes_of_coco_exports(write: Callable[..., Any], splits: Splits, tmp_path: Path) -> None:
    own = write(tmp_path, splits, NAMES)
    cfg = configure(tmp_path, 'bccd/faster_rcnn_se_r50_bccd.py', own)
    assert cfg.model.roi_head.bbox_head.num_classes == 4
    for split, pictures in splits.items():
        check_data(cfg, split, [cfg.val_evaluator] if split == 'val' else [])
        leaf = cfg[f'{split}_dataloader'].dataset
        dataset = DATASETS.build({**leaf, 'filter_cfg': None})
        assert dataset.metainfo['classes'] == NAMES
        found = [
            [(i['bbox_label'], tuple(i['bbox'])) for i in dataset.get_data_info(k)['instances']]
            for k in range(len(dataset))
        ]
        assert found == [
            [(label, (x, y, x + w, y + h)) for label, (x, y, w, h) in picture.boxes()]
            for picture in pictures
        ]


@pytest.mark.parametrize(('write', 'background'), MASKS.items())
def test_label_maps(
    write: Callable[..., Any], background: str | None, splits: Splits, tmp_path: Path
) -> None:
    cfg = configure(tmp_path, 'camvid/fcn_se_r50_camvid.py', write(tmp_path, splits, NAMES))
    assert cfg.model.decode_head.num_classes == 5
    for split, pictures in splits.items():
        check_data(cfg, split)
        leaf = cfg[f'{split}_dataloader'].dataset
        loading = [s for s in leaf.pipeline if s['type'].rpartition('.')[2].startswith('Load')]
        dataset = DATASETS.build({**leaf, 'pipeline': loading})
        if background is None:
            assert dataset.metainfo['classes'] == tuple(f'class_{k}' for k in range(5))
        else:
            assert dataset.metainfo['classes'] == (background, *NAMES)
        assert len(dataset) == len(pictures)
        for item, picture in zip(dataset, pictures, strict=True):
            assert Path(item['img_path']).stem.startswith(picture.name)
            np.testing.assert_array_equal(item['gt_seg_map'], picture.label_map())


def test_a_colour_that_no_class_has(splits: Splits, tmp_path: Path) -> None:
    own = next(write for write in MASKS if write.__name__ == 'cvat_masks')(tmp_path, splits, NAMES)
    listing = tmp_path / 'labelmap.txt'
    listing.write_text(listing.read_text().replace('51,221,255', '51,221,254'))
    cfg = configure(tmp_path, 'camvid/fcn_se_r50_camvid.py', own)
    with pytest.raises(UserError, match=r'cannot be loaded .* colour 51,221,255 is that of no cla'):
        check_data(cfg, 'train')
    listing.write_text('background,0,0,0\n')
    with pytest.raises(UserError, match=r'labelmap\.txt: write "name:red,green,blue::" per line'):
        configure(tmp_path, 'camvid/fcn_se_r50_camvid.py', own)


@pytest.mark.parametrize('ids', ['from 0', 'texts'])
def test_scores_do_not_depend_on_annotation_ids(ids: str, splits: Splits, tmp_path: Path) -> None:
    scores = []
    for name in ('from 1', ids):
        content = coco(splits['val'], NAMES)
        for number, annotation in enumerate(content['annotations']):
            annotation['id'] = {'from 0': number, 'from 1': number + 1}.get(name, f'id-{number}')
            if name == 'texts':
                del annotation['iscrowd']
        own = {split: {'ann_file': 'ann.json', 'img': '.'} for split in splits}
        (tmp_path / 'ann.json').write_text(json.dumps(content))
        cfg = configure(tmp_path, 'bccd/faster_rcnn_se_r50_bccd.py', own)
        assert cfg.val_evaluator.type == f'{"mmdet" if name == "from 1" else "mmse"}.CocoMetric'
        metric = METRICS.build(cfg.val_evaluator)
        metric.dataset_meta = {'classes': NAMES}
        for number, picture in enumerate(splits['val'], start=1):
            labels, boxes = zip(*picture.boxes(), strict=True)
            corners = torch.tensor(boxes, dtype=torch.float)
            corners[:, 2:] += corners[:, :2]
            found = {'bboxes': corners, 'labels': torch.tensor(labels)}
            found['scores'] = torch.linspace(0.9, 0.5, len(boxes))
            height, width = picture.image.shape[:2]
            sample = {'img_id': number, 'ori_shape': (height, width), 'pred_instances': found}
            metric.process({}, [sample])
        scores.append(metric.evaluate(len(splits['val']))['coco/bbox_mAP'])
    assert scores == [1.0, 1.0]


def test_boxes_of_voc(splits: Splits, tmp_path: Path) -> None:
    source = tmp_path / 'voc'
    voc(source, splits, NAMES)
    picture = splits['val'][0]
    file = source / f'Annotations/{picture.name}.xml'
    file.write_text(file.read_text().replace('<bndbox>', '<difficult>1</difficult><bndbox>', 1))
    (source / 'ImageSets/Main/star_val.txt').write_text(f'{picture.name} -1\n')
    (source / 'JPEGImages' / f'{picture.name}.jpg').unlink()
    (source / 'JPEGImages/more').mkdir()
    save(source / 'JPEGImages', f'more/{picture.name}.png', picture.image)
    names = source / 'ImageSets/Main/val.txt'
    names.write_text(names.read_text().replace(picture.name, f'more/{picture.name}'))
    (source / 'Annotations/more').mkdir()
    file.rename(source / f'Annotations/more/{picture.name}.xml')
    own = {s: {'ann_file': f'ImageSets/Main/{s}.txt', 'img': 'JPEGImages'} for s in splits}
    with pytest.raises(UserError, match=r'is not JSON but text: .*/prepare_data\.py voc'):
        configure(source, 'bccd/faster_rcnn_se_r50_bccd.py', own)

    facts = prepare_voc(source, tmp_path / 'coco')
    own = {s: {'ann_file': f'annotations/instances_{s}.json', 'img': s} for s in splits}
    cfg = configure(tmp_path / 'coco', 'bccd/faster_rcnn_se_r50_bccd.py', own)
    order = sorted(NAMES)
    for split, pictures in splits.items():
        check_data(cfg, split, [cfg.val_evaluator] if split == 'val' else [])
        dataset = DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'filter_cfg': None})
        assert dataset.metainfo['classes'] == tuple(order)
        found = [dataset.get_data_info(k)['instances'] for k in range(len(dataset))]
        assert [[(i['bbox_label'], tuple(i['bbox'])) for i in one] for one in found] == [
            [
                (order.index(NAMES[label]), (x, y, x + w, y + h))
                for label, (x, y, w, h) in picture.boxes()
            ]
            for picture in pictures
        ]
        flags = [i['ignore_flag'] for one in found for i in one]
        assert flags == [int(split == 'val'), *[0] * (len(flags) - 1)]
        assert facts[split]['boxes'] == len(flags)


@pytest.mark.parametrize('form', ['images\\{}', '../../label-studio/media/upload/4/{}'])
def test_names_with_folders_of_the_tool(form: str, splits: Splits, tmp_path: Path) -> None:
    own = label_studio_coco(tmp_path, splits, NAMES)
    file = tmp_path / own['train']['ann_file']
    content = json.loads(file.read_text())
    before = [image['file_name'] for image in content['images']]
    for image in content['images']:
        image['file_name'] = form.format(Path(image['file_name']).name)
    file.write_text(json.dumps(content))
    cfg = configure(tmp_path, 'bccd/faster_rcnn_se_r50_bccd.py', own)
    with pytest.raises(
        UserError, match=r'but 1a2b3c4d-scene_00\.jpg is in .*/train/images'
    ) as error:
        check_data(cfg, 'train')
    command = str(error.value)[str(error.value).index('sed -i') :]
    if shutil.which('sed') is None:
        pytest.skip('no sed')
    subprocess.run(['sh', '-c', command], check=True)  # what the sentence says to type
    names = [image['file_name'] for image in json.loads(file.read_text())['images']]
    assert names == [Path(name).name for name in before]
    assert check_data(configure(tmp_path, 'bccd/faster_rcnn_se_r50_bccd.py', own), 'train')


@pytest.mark.slow
def test_exports_that_are_no_data_set(splits: Splits, tmp_path: Path) -> None:
    detector, segmenter = 'bccd/faster_rcnn_se_r50_bccd.py', 'camvid/fcn_se_r50_camvid.py'
    save(tmp_path, 'img/a.jpg', splits['train'][0].image)
    for name, text, sentence in (
        (
            'annotations.xml',
            '<?xml version="1.0"?><annotations/>',
            'is not JSON but XML: ',
        ),
        ('a.json', '{"shapes": []}', r"no list 'images'; export .* LabelMe's by labelme2coco"),
        ('img', None, r'img is a folder: give one COCO file, which labelme2coco makes'),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        own = {split: {'ann_file': name, 'img': 'img'} for split in splits}
        with pytest.raises(UserError, match=sentence):
            configure(tmp_path, detector, own)
    labels = splits['train'][0].label_map()
    save(tmp_path, 'brush/task-7-annotation-3-by-1-tag-Car-0.png', labels)
    (tmp_path / 'npy').mkdir()
    np.save(tmp_path / 'npy/a.npy', labels)
    for folder, sentence in {
        'brush': 'one mask for each label of an image .* as Label Studio exports',
        'npy': '1 label maps cannot be loaded: they are arrays, give PNG files',
    }.items():
        own = {split: {'img': 'img', 'seg_map': folder} for split in splits}
        with pytest.raises(UserError, match=sentence):
            check_data(configure(tmp_path, segmenter, own), 'train')
        (tmp_path / 'classes.txt').write_text('\n'.join(['nothing', *NAMES]))
