"""A user's own data: a config of ten lines, from the annotations to a trained model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from support.engine import (
    IN_PROCESS,
    TINY,
    TINY_FASTER_RCNN,
    TINY_FCN,
    args_for_train,
    read_scalars,
)
from support.own_data import (
    detection_config,
    segmentation_config,
    write_detection,
    write_segmentation,
)

from mmse.checkpoints import read_checkpoint
from mmse.engine.config import load_config
from mmse.engine.preflight import preflight
from mmse.engine.run import train
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('fresh_logger')


def test_detection_follows_the_annotations(tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 4, 'val': 2})
    cfg = load_config(str(detection_config(tmp_path, tmp_path / 'data')))
    root = tmp_path / 'data'
    assert cfg.model.roi_head.bbox_head.num_classes == 3
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == f'{root}/val.json'
    for split, annotations in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.metainfo.classes == ('nut', 'bolt', 'gear')
        assert len(set(map(tuple, dataset.metainfo.palette))) == 3
        assert (dataset.data_root, dataset.ann_file) == (f'{root}/', f'{annotations}.json')
        scales = [step.scale for step in dataset.pipeline if step.type == 'Resize']
        assert scales == [(96, 96)]


def test_segmentation_follows_the_label_maps(tmp_path: Path) -> None:
    root = tmp_path / 'data'
    write_segmentation(root, {'train': 2, 'val': 1})
    config = segmentation_config(tmp_path, root)
    cfg = load_config(str(config))
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 4
    names = ('class_0', 'class_1', 'class_2', 'class_3')
    assert cfg.train_dataloader.dataset.metainfo.classes == names
    assert cfg.val_dataloader.dataset.data_prefix == {
        'img_path': 'images/val',
        'seg_map_path': 'labels/val',
    }
    assert cfg.test_dataloader.dataset.img_suffix == '.jpg'
    (root / 'classes.txt').write_text('floor\nnut\nbolt\ngear\nwasher\n')
    cfg = load_config(str(config))
    assert cfg.model.decode_head.num_classes == 5
    assert cfg.val_dataloader.dataset.metainfo.classes[-1] == 'washer'


@pytest.mark.parametrize(
    'base', ['coco/mask_rcnn_se_r50_fpn_1x_coco.py', 'coco/fcos_se_r50_fpn_gn-head_1x_coco.py']
)
def test_full_scale_detector_as_the_base(base: str, tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 2, 'val': 1})
    text = detection_config(tmp_path, tmp_path / 'data').read_text()
    (tmp_path / 'mine.py').write_text(text.replace('bccd/faster_rcnn_se_r50_bccd.py', base))
    cfg = load_config(str(tmp_path / 'mine.py'))
    heads = [cfg.model.bbox_head] if 'fcos' in base else list(cfg.model.roi_head.values())
    numbers = [head['num_classes'] for head in heads if 'num_classes' in head]
    assert numbers == ([3] if 'fcos' in base else [3, 3])
    assert cfg.train_dataloader.dataset.type == 'CocoDataset'
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'Resize']
    assert [step.scale for step in steps] == [(96, 96)]


def test_full_scale_segmenter_as_the_base(tmp_path: Path) -> None:
    """ADE20K ignores label 0; the user's label 0 is a class."""
    write_segmentation(tmp_path / 'data', {'train': 2, 'val': 1})
    text = segmentation_config(tmp_path, tmp_path / 'data').read_text()
    base = 'ade20k/upernet_se_r50_4xb4-160k_ade20k-512x512.py'
    (tmp_path / 'mine.py').write_text(text.replace('camvid/fcn_se_r50_camvid.py', base))
    cfg = load_config(str(tmp_path / 'mine.py'))
    assert cfg.model.decode_head.num_classes == 4
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.type == 'mmseg.BaseSegDataset' and dataset.reduce_zero_label is False
        assert not any('reduce_zero_label' in step for step in dataset.pipeline)


@pytest.mark.slow
def test_detector_on_own_data(tmp_path: Path, no_env_report: None) -> None:
    write_detection(tmp_path / 'data', {'train': 4, 'val': 3})
    options = {**TINY, **TINY_FASTER_RCNN, **IN_PROCESS, 'train_cfg.val_interval': 8}
    work_dir = tmp_path / 'work'
    config = detection_config(tmp_path, tmp_path / 'data')
    train(args_for_train(config, work_dir, cfg_options=options))
    checkpoint = read_checkpoint(work_dir / 'iter_8.pth')
    assert checkpoint['meta']['dataset_meta']['classes'] == ('nut', 'bolt', 'gear')
    assert checkpoint['state_dict']['roi_head.bbox_head.fc_cls.weight'].shape == (4, 32)
    (scores,) = [line for line in read_scalars(work_dir) if 'coco/bbox_mAP' in line]
    assert scores['step'] == 8 and 0 <= scores['coco/bbox_mAP'] <= 1
    picture = cv2.imread(str(work_dir / 'predictions.png'))
    assert picture.shape[0] > picture.shape[1] / 2 > 100


@pytest.mark.slow
def test_segmenter_on_own_data(tmp_path: Path, no_env_report: None) -> None:
    write_segmentation(tmp_path / 'data', {'train': 4, 'val': 3})
    options = {**TINY, **TINY_FCN, **IN_PROCESS, 'train_cfg.val_interval': 8}
    work_dir = tmp_path / 'work'
    config = segmentation_config(tmp_path, tmp_path / 'data')
    train(args_for_train(config, work_dir, cfg_options=options))
    checkpoint = read_checkpoint(work_dir / 'iter_8.pth')
    assert checkpoint['state_dict']['decode_head.conv_seg.weight'].shape[0] == 4
    (scores,) = [line for line in read_scalars(work_dir) if 'mIoU' in line]
    assert scores['step'] == 8 and 0 <= scores['mIoU'] <= 100
    assert (work_dir / 'predictions.png').is_file()


def edit(file: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def check(config: Path) -> None:
    """What happens before a training starts, with a model that builds at once."""
    tiny = TINY_FASTER_RCNN if 'bccd' in config.read_text() else TINY_FCN
    preflight(load_config(str(config), tiny), ('train', 'val'), whole_checkpoint=False)


def shift_boxes(content: dict) -> None:
    for annotation in content['annotations'][:8]:
        annotation['bbox'][2] += 100


DETECTION_DEFECTS: dict[str, tuple[str, Callable[[dict], Any], str]] = {
    'a missing image': (
        'train',
        lambda c: c['images'][1].update(file_name='gone.jpg'),
        r'train\.json: 1 images are missing \(.*photos/gone\.jpg\)',
    ),
    'boxes outside': ('train', shift_boxes, r'train\.json: 8 of 12 boxes reach past their image'),
    'no box at all': (
        'val',
        lambda c: c['annotations'].clear(),
        r'val\.json: there is no usable object of the classes nut, bolt, gear',
    ),
    'another class in val': (
        'val',
        lambda c: c['categories'].__setitem__(1, {'id': 3, 'name': 'screw'}),
        r'val\.json has no class bolt: its classes are nut, screw, gear',
    ),
    'another order in val': (
        'val',
        lambda c: c['categories'].reverse(),
        r'lists its classes as gear, bolt, nut, the config as nut, bolt, gear',
    ),
    'an unknown category': (
        'train',
        lambda c: c['annotations'][2].update(category_id=99),
        r'1 annotations have an unknown category_id \(id 3: 99\)',
    ),
}


@pytest.mark.parametrize('defect', DETECTION_DEFECTS)
def test_defects_of_detection_data(defect: str, tmp_path: Path) -> None:
    split, change, sentence = DETECTION_DEFECTS[defect]
    write_detection(tmp_path / 'data', {'train': 4, 'val': 2})
    edit(tmp_path / 'data' / f'{split}.json', change)
    with pytest.raises(UserError, match=sentence):
        check(detection_config(tmp_path, tmp_path / 'data'))


def test_what_is_only_worth_knowing(tmp_path: Path, logged_warnings: list[str]) -> None:
    write_detection(tmp_path / 'data', {'train': 4, 'val': 2})

    def change(content: dict) -> None:
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 12]
        content['annotations'][0]['bbox'][2] += 100
        content['images'].append({**content['images'][0], 'id': 99})
        again = {'id': 999, 'image_id': 99, 'bbox': [1, 1, 9, 9], 'area': 81}
        content['annotations'].append({**content['annotations'][0], **again})

    edit(tmp_path / 'data' / 'train.json', change)
    check(detection_config(tmp_path, tmp_path / 'data'))
    said = '\n'.join(logged_warnings)
    assert '1 boxes reach past their image ([' in said
    assert '1 classes have no object (gear)' in said
    assert '1 images are listed more than once (' in said


def test_defects_of_segmentation_data(tmp_path: Path) -> None:
    root = tmp_path / 'data'
    write_segmentation(root, {'train': 3, 'val': 2})
    config = segmentation_config(tmp_path, root)
    check(config)
    labels = root / 'labels' / 'val' / '1.png'
    kept = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
    wrong = kept.copy()
    wrong[0, :2] = 4, 9
    cv2.imwrite(str(labels), wrong)
    with pytest.raises(UserError, match=r'labels other than 0 to 3 and 255 \(.*1\.png has 4, 9'):
        check(config)
    cv2.imwrite(str(labels), kept[:-1])
    with pytest.raises(UserError, match='1 label maps differ in size from their image'):
        check(config)
    labels.unlink()
    with pytest.raises(UserError, match=r'1 label maps are missing \(.*1\.png'):
        check(config)
    cv2.imwrite(str(labels), kept)
    cv2.imwrite(str(root / 'images' / 'val' / 'scan.tif'), wrong)
    with pytest.raises(UserError, match=r'no label map in .*labels/val begins like scan\.tif'):
        check(config)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (("data_root='", "data_rot='"), 'own_data: unknown key data_rot; allowed: data_root, '),
        (("val=dict(ann_file='val.json', img='photos'),", ''), r'own_data\.val is missing'),
        (('    train=dict(ann_file=', '    train=dict(annotations='), r'it needs ann_file and img'),
        (("data_root='", "data_root='/nowhere"), r'own_data\.data_root: there is no folder'),
        (("ann_file='train.json'", "ann_file='t.json'"), r't\.json cannot be read'),
        (("ann_file='val.json'", "ann_file='v.json'"), r'v\.json cannot be read'),
        (("ann_file='val.json', img='photos'", "ann_file='val.json', img='p'"), r'missing \(.*/p/'),
    ],
)
def test_mistakes_in_own_data(change: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 2, 'val': 1})
    config = detection_config(tmp_path, tmp_path / 'data')
    text = config.read_text().replace(*change)
    assert text != config.read_text()
    config.write_text(text)
    with pytest.raises(UserError, match=sentence):
        check(config)
