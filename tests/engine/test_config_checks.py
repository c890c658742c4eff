"""Settings that fail, or never end, once a run has begun."""

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from support.engine import CONFIGS, TINY, TINY_FASTER_RCNN, TINY_FCN

from mmse.engine import config_checks
from mmse.engine.config import load_config
from mmse.engine.config.heads import check_class_weights
from mmse.engine.config_checks import check_batch_of_one, check_config, classes_of
from mmse.utils.errors import UserError

LOSS = {'type': 'CrossEntropyLoss', 'use_sigmoid': False}
DET, SEG = 'faster_rcnn_se_r50.py', 'fcn_se_r50.py'
OTHER = {'val_evaluator.ann_file': 'other.json'}


def config(name: str, options: dict[str, Any]) -> Config:
    tiny = TINY_FASTER_RCNN if name == DET else TINY_FCN
    cfg = load_config(str(CONFIGS / name), {**TINY, **tiny})
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('name', [DET, SEG])
def test_shipped_configs_pass(name: str) -> None:
    check_config(config(name, {}), ('train', 'val', 'test'))


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        (
            SEG,
            {'train_cfg': {'_delete_': True, 'type': 'EpochBasedTrainLoop', 'max_epochs': 2}},
            'sampler is InfiniteSampler, whose epochs never end: set train_dataloader.sampler.type',
        ),
        (SEG, {'train_cfg': {'_delete_': True, 'by_epoch': True, 'max_epochs': 2}}, 'never end'),
        (
            SEG,
            {'model.decode_head.loss_decode': {**LOSS, 'class_weight': [1.0, 2.0]}},
            r'loss_decode\.class_weight has 2 entries, but its head has 7 classes: give 7$',
        ),
        (
            DET,
            {'model.roi_head.bbox_head.loss_cls': {**LOSS, 'class_weight': [1.0] * 6}},
            'has 6 entries, but its head has 6 classes: give 7, the last one for no object',
        ),
        (
            SEG,
            {'model.decode_head.ignore_index': 0},
            r'ignored label differs: model\.decode_head\.ignore_index=0, but .*auxiliary_head',
        ),
        (SEG, {'val_evaluator.ignore_index': 254}, r'val_evaluator\.ignore_index=254, but model\.'),
        (SEG, {'model.data_preprocessor.seg_pad_val': 0}, r'seg_pad_val=0, but'),
        (
            SEG,
            {'visualizer.vis_backends': [{'type': 'AimVisBackend'}, {'type': 'LocalVisBackend'}]},
            r'vis_backends\.0\.type is AimVisBackend, which needs aim: run pip install aim',
        ),
        (
            SEG,
            {'train_dataloader.dataset.indexes': 3},
            r'train_dataloader\.dataset\.indexes: ShapesSegDataset takes no indexes',
        ),
        (
            SEG,
            {'val_dataloader.dataset.metainfo': {'classes': 'ring'}},
            r"the text 'ring': write a",
        ),
        (DET, OTHER, r'val_evaluator reads other\.json, but val_dataloader .*instances_val\.json'),
        (DET, {'val_dataloader.dataset.indices': 2}, r'indices=2 leaves images out that val_eval'),
        (
            DET,
            {
                'val_dataloader.dataset.test_mode': False,
                'val_dataloader.dataset.filter_cfg': {'filter_empty_gt': True},
            },
            r'set val_dataloader\.dataset\.test_mode=True',
        ),
        (DET, {'val_evaluator.format_only': True}, r'set val_evaluator\.outfile_prefix to where'),
        (SEG, {'val_evaluator.format_only': True}, r'set val_evaluator\.output_dir to where'),
        (
            SEG,
            {'val_dataloader.dataset.data_prefix': {'_delete_': True, 'img_path': 'val'}},
            r'has no seg_map_path, so there is nothing to measure: set val_evaluator\.format_only',
        ),
        (
            SEG,
            {'val_dataloader.dataset.pipeline': [{'type': 'LoadImageFromFile'}]},
            'the pipeline of val_dataloader loads no label maps',
        ),
    ],
)
def test_settings_that_do_not_go_together(
    name: str, options: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_checks, 'find_spec', lambda package: None)
    with pytest.raises(UserError, match=sentence):
        check_config(config(name, options), ('train', 'val'))


def test_the_same_ignored_label_everywhere_is_fine() -> None:
    heads = {f'model.{head}_head.ignore_index': 254 for head in ('decode', 'auxiliary')}
    others = {'model.data_preprocessor.seg_pad_val': 254, 'val_evaluator.ignore_index': 254}
    check_config(config(SEG, {**heads, **others}), ('train', 'val'))


def test_an_evaluator_of_the_same_file_by_another_path(tmp_path: Path) -> None:
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/instances_val.json').write_text(json.dumps({}))
    (tmp_path / 'link').symlink_to(tmp_path / 'annotations')
    options = {
        'val_dataloader.dataset.data_root': str(tmp_path),
        'val_evaluator.ann_file': f'{tmp_path}/link/../annotations/instances_val.json',
    }
    check_config(config(DET, options), ('val',))


def test_weights_of_heads_in_lists_and_of_mask2former() -> None:
    weighted = {'type': 'CrossEntropyLoss', 'class_weight': [1.0] * 5}
    stage = {'num_classes': 4, 'loss_cls': weighted}
    check_class_weights({'roi_head': {'bbox_head': [stage]}})
    check_class_weights(
        {
            'decode_head': {
                'num_classes': 2,
                'out_channels': 1,
                'loss_decode': {'class_weight': [2.0]},
            }
        }
    )
    panoptic = {'num_things_classes': 2, 'num_stuff_classes': 2, 'loss_cls': weighted}
    check_class_weights({'panoptic_head': panoptic})
    named = {**weighted, 'loss_name': 'loss_cls_ce'}  # as mmseg's SAN has it
    check_class_weights({'decode_head': {'num_classes': 4, 'loss_decode': [named]}})
    sigmoid = {'num_classes': 4, 'loss_cls': {**weighted, 'use_sigmoid': True}}
    with pytest.raises(UserError, match=r'but its head has 4 classes: give 4$'):
        check_class_weights({'bbox_head': sigmoid})


@pytest.mark.parametrize('name', ['pspnet_se_r50.py', 'upernet_se_r50.py', SEG])
def test_a_batch_of_one_image_beside_pooling(name: str) -> None:
    cfg = load_config(str(CONFIGS / name))
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    check_batch_of_one(cfg, model)
    cfg.train_dataloader.batch_size = 1
    if name == SEG:  # no pooling
        check_batch_of_one(cfg, model)
        return
    with pytest.raises(
        UserError, match=r'batch_size is 1, but model\.decode_head.* set batch_size'
    ):
        check_batch_of_one(cfg, model)


def test_class_names_of_a_split() -> None:
    cfg = config(SEG, {})
    assert classes_of(cfg, 'val')[:2] == ('background', 'circle')
    cfg.val_dataloader.dataset.metainfo = {'classes': ('a', 'b')}
    assert classes_of(cfg, 'val') == ('a', 'b')
    cfg.val_dataloader = None
    assert classes_of(cfg, 'val') is None
