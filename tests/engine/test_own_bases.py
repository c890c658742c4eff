"""``own_data`` on the configs that mmdet and mmseg ship."""

from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from support.own_data import write_detection, write_segmentation

from mmse.engine.config import innermost, leaves, load_config
from mmse.utils.errors import UserError

DETECTORS = {
    'faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py': ('RepeatDataset', 'CocoMetric'),
    'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py': ('RepeatDataset', 'VOCMetric'),
    'openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages.py': ('CocoDataset', 'CocoMetric'),
    'cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py': ('RepeatDataset', 'CocoMetric'),
    'objects365/retinanet_r50_fpn_1x_objects365v1.py': ('CocoDataset', 'CocoMetric'),
    'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py': ('CocoDataset', 'CocoMetric'),
    'wider_face/retinanet_r50_fpn_1x_widerface.py': ('CocoDataset', 'VOCMetric'),
}
SEGMENTERS = (
    'fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
    'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',
    'deeplabv3plus/deeplabv3plus_r18-d8_4xb4-80k_loveda-512x512.py',
    'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
    'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
)


def own_config(folder: Path, base: str, kind: str) -> str:
    keys = (
        ("ann_file='train.json', img='photos'", "ann_file='val.json', img='photos'")
        if kind == 'det'
        else [f"img='images/{s}', seg_map='labels/{s}'" for s in ('train', 'val')]
    )
    (folder / 'mine.py').write_text(
        f"_base_ = '{base}'\nown_data = dict(data_root='{folder}/data', scale=(96, 64), "
        f'train=dict({keys[0]}), val=dict({keys[1]}))\n'
    )
    return str(folder / 'mine.py')


@pytest.mark.parametrize('base', DETECTORS)
def test_detectors(base: str, tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 2, 'val': 1})
    cfg = load_config(own_config(tmp_path, f'mmdet::{base}', 'det'))
    wrapper, metric = DETECTORS[base]
    init_default_scope('mmdet')
    train, val = (DATASETS.build(cfg[f'{s}_dataloader'].dataset) for s in ('train', 'val'))
    assert type(train).__name__ == wrapper and type(val).__name__ == 'CocoDataset'
    assert train.metainfo['classes'] == val.metainfo['classes'] == ('nut', 'bolt', 'gear')
    # Photos of 72 x 64 and 64 x 96 within 96 x 64.
    long, short = sorted(train[0]['inputs'].shape[1:], reverse=True)
    assert long <= 96 and short <= 64
    assert cfg.val_evaluator.type.endswith(metric)
    if metric == 'CocoMetric':
        assert METRICS.build(cfg.val_evaluator)._coco_api.get_ann_ids() == [1, 2, 3]
    head = cfg.model.bbox_head if 'bbox_head' in cfg.model else cfg.model.roi_head.bbox_head
    assert head.num_classes == 3


@pytest.mark.parametrize('base', SEGMENTERS)
def test_segmenters(base: str, tmp_path: Path) -> None:
    write_segmentation(tmp_path / 'data', {'train': 2, 'val': 1})
    cfg = load_config(own_config(tmp_path, f'mmseg::{base}', 'seg'))
    init_default_scope('mmseg')
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == 2 and not leaves(cfg.train_dataloader.dataset)[0].reduce_zero_label
    original = cv2.imread(str(tmp_path / 'data/labels/train/0.png'), cv2.IMREAD_UNCHANGED)
    seen = set(train[0]['data_samples'].gt_sem_seg.data.unique().tolist())
    assert seen <= set(original.flatten().tolist()) | {255}
    heads = cfg.model.decode_head
    heads = heads if isinstance(heads, list) else [heads]
    assert {head.num_classes for head in heads} == {4}
    if 'mask2former' in base:
        assert heads[0].loss_cls.class_weight == [1.0] * 4 + [0.1]


def test_rpn_keeps_its_one_class_and_losses_follow(tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 2, 'val': 1})
    base = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco.py'
    cfg = load_config(own_config(tmp_path, base, 'det'))
    assert cfg.model.rpn_head.num_classes == 1 and cfg.model.roi_head.bbox_head.num_classes == 3
    base = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
    cfg = load_config(own_config(tmp_path, base, 'det'))
    head = cfg.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (3, 0)
    assert head.loss_cls.class_weight == [1.0] * 3 + [0.1]
    assert cfg.model.panoptic_fusion_head.num_things_classes == 3
    init_default_scope('mmdet')
    assert MODELS.build(cfg.model).panoptic_head.cls_embed.out_features == 4


def test_weights_that_belong_to_the_base_are_left_out(
    tmp_path: Path, logged_warnings: list[str]
) -> None:
    write_segmentation(tmp_path / 'data', {'train': 2, 'val': 1})
    base = 'mmseg::cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py'
    cfg = load_config(own_config(tmp_path, base, 'seg'))
    assert cfg.model.decode_head.loss_decode.class_weight is None
    assert 'loss_decode.class_weight of the base belongs to its 19 classes' in logged_warnings[-1]


@pytest.mark.parametrize(
    ('base', 'needed'),
    [
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 'panoptic label maps'),
        ('htc/htc_r50_fpn_1x_coco.py', 'label maps beside boxes'),
        (
            'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
            'images without labels',
        ),
    ],
)
def test_bases_for_other_annotations(base: str, needed: str, tmp_path: Path) -> None:
    write_detection(tmp_path / 'data', {'train': 2, 'val': 1})
    with pytest.raises(UserError, match=f'of the base needs {needed}, which own_data cannot name'):
        load_config(own_config(tmp_path, f'mmdet::{base}', 'det'))


def test_the_config_is_complete_by_itself(tmp_path: Path) -> None:
    write_segmentation(tmp_path / 'data', {'train': 2, 'val': 1})
    cfg = load_config(own_config(tmp_path, f'mmseg::{SEGMENTERS[0]}', 'seg'))
    cfg.dump(tmp_path / 'written.py')
    (tmp_path / 'data').rename(tmp_path / 'elsewhere')
    again = load_config(str(tmp_path / 'written.py'))
    assert again.to_dict() == Config(cfg.to_dict()).to_dict() and 'own_data' not in again
    assert innermost(again.val_dataloader.dataset).metainfo.classes[-1] == 'class_3'
    with pytest.raises(UserError, match='the config that training wrote into its working folder'):
        load_config(str(tmp_path / 'mine.py'))
