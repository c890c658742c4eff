"""What a user sets beside ``own_data`` holds, or is refused by its name."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from support.own_data import (
    detection_config,
    segmentation_config,
    write_detection,
    write_segmentation,
)

from mmse.engine.config import leaves, load_config
from mmse.utils.errors import UserError

TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'
STEPS = "[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]"
PACK = "dict(type='PackDetInputs')"


@pytest.fixture
def detection(tmp_path: Path) -> Path:
    write_detection(tmp_path / 'data', {'train': 4, 'val': 2, 'more': 3})
    return detection_config(tmp_path, tmp_path / 'data')


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    """Label maps of 0 to 3."""
    write_segmentation(tmp_path / 'data', {'train': 3, 'val': 2})
    return segmentation_config(tmp_path, tmp_path / 'data')


def with_lines(config: Path, *lines: str) -> str:
    config.write_text(config.read_text() + '\n'.join(lines) + '\n')
    return str(config)


def built(cfg: Config, split: str) -> Any:
    """The data set of a split as the Runner builds it."""
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def test_indices_hold_in_the_file_and_on_the_command_line(detection: Path) -> None:
    assert len(built(load_config(str(detection)), 'train')) == 4
    assert len(built(load_config(str(detection), {f'{TRAIN}.indices': 2}), 'train')) == 2
    config = with_lines(detection, 'train_dataloader = dict(dataset=dict(indices=3))')
    cfg = load_config(config)
    assert len(built(cfg, 'train')) == 3
    assert len(built(cfg, 'val')) == 2


def test_chosen_classes_hold(detection: Path) -> None:
    chosen = "dict(dataset=dict(metainfo=dict(classes=('bolt', 'gear'))))"
    cfg = load_config(with_lines(detection, f'train_dataloader = val_dataloader = {chosen}'))
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    train = built(cfg, 'train')
    # The loader's own numbering: categories 3 and 12 of the file.
    assert train.metainfo['classes'] == ('bolt', 'gear') and train.cat2label == {3: 0, 12: 1}
    assert {len(train[i]['data_samples'].gt_instances) for i in range(4)} == {2}
    assert built(cfg, 'test').metainfo['classes'] == ('bolt', 'gear')


@pytest.mark.parametrize(
    ('wrapper', 'length'),
    [
        (f"type='RepeatDataset', times=5, dataset=dict(type='CocoDataset', pipeline={STEPS})", 20),
        (
            "type='ClassBalancedDataset', oversample_thr=0.9, "
            f"dataset=dict(type='CocoDataset', pipeline={STEPS})",
            4,
        ),
        (
            "type='MultiImageMixDataset', pipeline=[dict(type='Mosaic', img_scale=(96, 64)), "
            f"{PACK}], dataset=dict(type='CocoDataset', pipeline={STEPS})",
            4,
        ),
    ],
)
def test_wrappers_hold(wrapper: str, length: int, detection: Path) -> None:
    lines = f'train_dataloader = dict(dataset=dict(_delete_=True, {wrapper}))'
    cfg = load_config(with_lines(detection, lines))
    train = built(cfg, 'train')
    assert type(train).__name__ in wrapper and len(train) == length
    assert train[0] is not None
    if 'Mosaic' in wrapper:
        assert train[0]['inputs'].shape[1:] == (128, 192)


def test_several_training_sets(detection: Path) -> None:
    text = detection.read_text()
    one = "train=dict(ann_file='train.json', img='photos')"
    for several in (
        f"train=[{one.removeprefix('train=')}, dict(ann_file='more.json', img='photos')]",
        "train=dict(ann_file=['train.json', 'more.json'], img='photos')",
    ):
        assert one in text
        detection.write_text(text.replace(one, several))
        train = built(load_config(str(detection)), 'train')
        assert len(train) == 7 and train.metainfo['classes'] == ('nut', 'bolt', 'gear')


def test_no_validation_data(detection: Path) -> None:
    text = detection.read_text()
    detection.write_text(text.replace("val=dict(ann_file='val.json', img='photos')", 'val=None'))
    cfg = load_config(str(detection))
    for split in ('val', 'test'):
        assert [cfg[f'{split}_{part}'] for part in ('dataloader', 'evaluator', 'cfg')] == [None] * 3
    assert [s.scale for s in cfg.test_pipeline if s.type == 'Resize'] == [(96, 96)]


def test_a_test_set_described_without_own_data(detection: Path, tmp_path: Path) -> None:
    lines = f"""
test_dataloader = dict(dataset=dict(_delete_=True, type='mmdet.CocoDataset', ann_file='more.json',
    data_root='{tmp_path}/data/', data_prefix=dict(img='photos'), test_mode=True, pipeline={STEPS}))
test_evaluator = dict(ann_file='{tmp_path}/data/more.json')
"""
    cfg = load_config(with_lines(detection, lines))
    assert len(built(cfg, 'test')) == 3 and len(built(cfg, 'val')) == 2
    assert cfg.test_dataloader.dataset.metainfo.classes == ('nut', 'bolt', 'gear')
    assert cfg.test_evaluator.ann_file.endswith('more.json')
    assert cfg.val_evaluator.ann_file.endswith('val.json')


def test_a_class_that_reads_coco_files_stays(detection: Path, tmp_path: Path) -> None:
    (tmp_path / 'own_nuts.py').write_text(
        'from mmdet.registry import DATASETS\nfrom mmdet.datasets import CocoDataset\n'
        '@DATASETS.register_module(force=True)\nclass Nuts(CocoDataset):\n    pass\n'
    )
    lines = (
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})',
        "custom_imports = dict(imports=['own_nuts'], allow_failed_imports=False)",
        "train_dataloader = dict(dataset=dict(type='Nuts'))",
    )
    cfg = load_config(with_lines(detection, *lines))
    assert type(built(cfg, 'train')).__name__ == 'Nuts'
    assert cfg.val_dataloader.dataset.type == 'mmdet.CocoDataset'


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (
            {f'{VAL}.ann_file': 'other.json'},
            r"val_dataloader\.dataset\.ann_file='other\.json' is set",
        ),
        ({f'{TRAIN}.data_root': 'x'}, r"train_dataloader\.dataset\.data_root='x' is set beside"),
        ({f'{TRAIN}.type': 'VOCDataset'}, 'VOCDataset, which does not read what own_data'),
        ({f'{TRAIN}.times': 3}, 'dataset.times is set, but CocoDataset takes no times'),
        ({f'{TRAIN}.metainfo.classes': 'nut'}, r"is the text 'nut': write a tuple"),
        ({f'{TRAIN}.metainfo.classes': ('nut', 'nail')}, r'has nail, but the classes of own_data'),
        ({'model.roi_head.bbox_head.num_classes': 7}, 'whose data have 3 classes .nut, bolt, gear'),
        ({'own_data.scale': 96}, r'own_data\.scale is 96: give one \(width, height\) in pixels'),
        ({'own_data.scale': '96x64'}, r"own_data\.scale is '96x64': give one"),
        ({'own_data.scale': [(96, 64), (128, 96)]}, r'set a RandomChoiceResize'),
        (
            {'own_data.train': 'train.json'},
            r"own_data\.train is 'train\.json': give dict\(ann_file",
        ),
        ({'own_data': 'data'}, r"own_data is 'data': give dict\(data_root=\.\.\."),
        ({'own_data.data_root': '~/no_such_folder'}, r'there is no folder /[^~]*/no_such_folder'),
    ],
)
def test_what_cannot_hold_is_refused(
    options: dict[str, Any], sentence: str, detection: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config(str(detection), options)


def test_segmentation_lists_and_label_zero(segmentation: Path, tmp_path: Path) -> None:
    (tmp_path / 'data/first.txt').write_text('0\n2\n')
    options = {f'{TRAIN}.ann_file': 'first.txt', f'{TRAIN}.reduce_zero_label': True}
    cfg = load_config(str(segmentation), options | {f'{VAL}.reduce_zero_label': True})
    train = built(cfg, 'train')
    assert [Path(item['img_path']).name for item in map(train.get_data_info, range(2))] == [
        '0.jpg',
        '2.jpg',
    ]
    assert train.reduce_zero_label and train.metainfo['classes'] == (
        'class_1',
        'class_2',
        'class_3',
    )
    assert cfg.model.decode_head.num_classes == 3
    assert built(cfg, 'test').reduce_zero_label  # the data of val


def test_names_in_segmentation_come_with_colours_of_their_number(segmentation: Path) -> None:
    names = ('floor', 'nut', 'bolt', 'gear')
    cfg = load_config(str(segmentation), {f'{TRAIN}.metainfo': {'classes': names}})
    for split in ('train', 'val', 'test'):
        metainfo = built(cfg, split).metainfo
        assert metainfo['classes'] == names and len(metainfo['palette']) == 4
    palette = [(0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)]
    cfg = load_config(str(segmentation), {f'{TRAIN}.metainfo.palette': palette})
    assert built(cfg, 'train').metainfo['palette'] == palette


def test_images_of_several_endings_and_masks_with_words(segmentation: Path, tmp_path: Path) -> None:
    root = tmp_path / 'data'
    (root / 'images/train/1.jpg').rename(root / 'images/train/1.JPG')
    for file in (root / 'labels/train').iterdir():
        file.rename(file.with_name(f'{file.stem}_mask.png'))
    (root / 'images/train/._0.jpg').write_bytes(b'of a file system')
    train = built(load_config(str(segmentation)), 'train')
    found = {
        (Path(i['img_path']).name, Path(i['seg_map_path']).name)
        for i in map(train.get_data_info, range(3))
    }
    assert found == {('0.jpg', '0_mask.png'), ('1.JPG', '1_mask.png'), ('2.jpg', '2_mask.png')}


def test_images_without_label_maps_are_a_test_set(segmentation: Path) -> None:
    cfg = load_config(str(segmentation), {'own_data.test': {'img': 'images/val'}})
    assert len(built(cfg, 'test')) == 2
    assert 'LoadAnnotations' not in [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert leaves(cfg.test_dataloader.dataset)[0].data_prefix == {'img_path': 'images/val'}


def test_lists_of_scales(detection: Path) -> None:
    detection.write_text(
        detection.read_text()
        + "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
        "dict(type='RandomChoiceResize', scales=[(640, 480), (800, 600)], keep_ratio=True)]))\n"
    )
    step = load_config(str(detection)).train_dataloader.dataset.pipeline[1]
    assert step == {'type': 'RandomChoiceResize', 'scales': [(96, 96)], 'keep_ratio': True}
