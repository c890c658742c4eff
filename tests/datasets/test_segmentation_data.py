"""The check of segmentation data: each fault with its sentence, labels as the loss sees them."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from PIL import Image
from support.data_checks import SEG_PIPELINE, check, segmentation, write_pairs

from mmse.utils.errors import UserError

pytest.importorskip('mmseg')

MAP = np.tile(np.array([0, 1, 2, 0, 1, 0], np.uint8), (20, 5))  # 20 x 30


def test_clean_pairs(tmp_path: Path) -> None:
    ignored = MAP.copy()
    ignored[:2] = 255
    write_pairs(tmp_path, [MAP, ignored])
    report = check(segmentation(tmp_path))
    assert report.summary == (
        'train_dataloader.dataset: 2 images (all decoded), 3 of 3 classes in their label maps '
        '(a 47.5 %, b 31.7 %, c 15.8 %), 5.0 % of the pixels left out of the loss (255)'
    )
    assert report.warnings == []


def test_classes_that_are_never_seen(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    assert check(segmentation(tmp_path, 5)).warnings == [
        'train_dataloader.dataset: 2 classes are in none of the 1 label maps (d (3), e (4))'
    ]
    marked = MAP.copy()
    marked[:5] = 255
    write_pairs(tmp_path, [marked])
    assert check(segmentation(tmp_path, 4)).warnings == [
        'train_dataloader.dataset: 1 classes are in none of the 1 label maps (d (3)); 25.0 % of '
        'the pixels are 255, which is left out of the loss'
    ]


def jpeg(root: Path) -> None:
    cv2.imwrite(str(root / 'ann' / '1.jpg'), MAP)
    (root / 'ann' / '1.jpg').replace(root / 'ann' / '1.png')


FAULTS: dict[str, tuple[Any, int, str]] = {
    'labels above': (
        np.where(MAP == 2, 9, MAP),
        3,
        '1 label maps have labels other than 0 to 2 and 255 ({ann}/1.png has 9); in all they hold '
        '0, 1, 2, 9: number the classes from 0 to 2, or give the names of all classes',
    ),
    '16 bits': (
        np.array([0, 257, 300], np.uint16)[MAP],
        3,
        '1 label maps have labels that the loader folds to 8 bits, so that 257 becomes 1: use '
        'labels up to 254, and 255 for what is left out of the loss ({ann}/1.png)',
    ),
    'colours': (
        np.stack([MAP] * 3, -1),
        3,
        '1 label maps have several channels, but a label map has one, with the number of a class '
        'in each pixel: turn its colours into numbers, or list the classes with their colours in '
        'labelmap.txt of data_root, such as car:64,0,128:: ({ann}/1.png)',
    ),
    'jpeg': (jpeg, 3, '1 label maps are JPEG files, which blur labels: save them as PNG ({ann}'),
    'another size': (
        np.zeros((20, 31), np.uint8),
        3,
        '1 label maps differ in size from their image ({ann}/1.png is 31x20, its image 30x20)',
    ),
    'damaged': (
        lambda root: (root / 'ann' / '1.png').write_bytes(b'\x89PNG\r\n\x1a\n'),
        3,
        '1 label maps cannot be loaded ({ann}/1.png: ',
    ),
    'missing': (
        lambda root: (root / 'ann' / '1.png').unlink(),
        3,
        '1 label maps are missing ({ann}/1.png)',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_stops_a_training(tmp_path: Path, fault: str) -> None:
    what, classes, sentence = FAULTS[fault]
    write_pairs(tmp_path, [MAP, MAP, MAP])
    if callable(what):
        what(tmp_path)
    else:
        Image.fromarray(what).save(tmp_path / 'ann' / '1.png')
    with pytest.raises(UserError, match=re.escape(sentence.format(ann=tmp_path / 'ann'))):
        check(segmentation(tmp_path, classes))


def test_labels_of_float_maps(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP, MAP])
    settings = {'seg_map_suffix': '.tif'}
    for k in range(2):
        Image.fromarray(MAP.astype(np.float32)).save(tmp_path / 'ann' / f'{k}.tif')
    assert check(segmentation(tmp_path, **settings)).warnings == []
    Image.fromarray(MAP.astype(np.float32) / 2).save(tmp_path / 'ann' / '1.tif')
    sentence = f'labels that are no whole numbers: write whole numbers ({tmp_path}/ann/1.tif)'
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(segmentation(tmp_path, **settings))


def test_maps_of_16_bits_with_small_labels_are_right(tmp_path: Path) -> None:
    labels = MAP.astype(np.uint16)
    labels[:2] = 65535  # the loader folds it to 255
    write_pairs(tmp_path, [labels])
    report = check(segmentation(tmp_path))
    assert '3 of 3 classes' in report.summary and '10.0 % of the pixels left' in report.summary


@pytest.mark.parametrize(
    ('values', 'settings', 'sentence'),
    [
        (
            (0, 255),
            {},
            'the label maps hold only 0 and 255, and 255 is left out of the loss, so there is '
            'nothing to tell apart: if 255 is a class, write its number instead, such as 1',
        ),
        (
            (0, 1),
            {'reduce_zero_label': True},
            'the label maps hold only 0 and 255, and 255 is left out of the loss, so there is '
            'nothing to tell apart: set reduce_zero_label=False if label 0 is a class',
        ),
        ((0, 255), {'reduce_zero_label': True}, 'the label maps hold nothing but 255, which is'),
        ((0, 0), {}, 'the label maps hold only label 0: there is nothing to tell apart'),
        (
            (0, 128),
            {},
            'labels other than 0 to 1 and 255 ({ann}/0.png has 128); in all they hold 0, 128: '
            'number the classes from 0 to 1',
        ),
    ],
)
def test_masks_that_leave_nothing_to_learn(
    tmp_path: Path, values: tuple[int, int], settings: dict[str, Any], sentence: str
) -> None:
    write_pairs(tmp_path, [np.array(values, np.uint8)[MAP % 2]])
    with pytest.raises(UserError, match=re.escape(sentence.format(ann=tmp_path / 'ann'))):
        check(segmentation(tmp_path, 2, **settings))


def test_validation_images_may_hold_one_class(tmp_path: Path) -> None:
    write_pairs(tmp_path, [np.zeros((20, 30), np.uint8)])
    report = check(segmentation(tmp_path, 2, test_mode=True), 'val')
    assert '1 of 2 classes in their label maps (a 100.0 %)' in report.summary


@pytest.mark.parametrize('raw', [0, 1, 2, 3, 4, 254, 255])
@pytest.mark.parametrize('reduce', [False, True])
def test_labels_follow_the_loader(tmp_path: Path, raw: int, reduce: bool) -> None:
    """A raw label is fine exactly where mmseg's loader makes 0, 1, 2 or 255 of it."""
    labels = MAP.copy() + int(reduce)
    labels[0, 0] = raw
    write_pairs(tmp_path, [labels])
    dataset = segmentation(tmp_path, reduce_zero_label=reduce)
    init_default_scope('mmseg')
    loaded = DATASETS.build({**dataset, 'pipeline': SEG_PIPELINE[:2]})[0]['gt_seg_map']
    if int(loaded[0, 0]) in (0, 1, 2, 255):
        shares = [100 * float((loaded == k).mean()) for k in (0, 1, 2, 255)]
        report = check(dataset)
        seen = [float(n) for n in re.findall(r'([\d.]+) %', report.summary)]
        assert np.allclose(seen, shares, atol=0.06)
    else:
        with pytest.raises(UserError, match='labels other than 0 to 2 and 255'):
            check(dataset)


def test_a_subset_of_the_classes_of_a_known_data_set(tmp_path: Path) -> None:
    labels = np.tile(np.array([0, 1, 2, 3, 4], np.uint8), (20, 6))
    write_pairs(tmp_path, [labels])
    dataset = segmentation(
        tmp_path,
        type='CityscapesDataset',
        seg_map_suffix='.png',
        metainfo={'classes': ('road', 'wall'), 'palette': [[0, 0, 0], [255, 0, 0]]},
    )
    report = check(dataset)
    assert '2 of 2 classes in their label maps (road 20.0 %, wall 20.0 %), 60.0 % of' in (
        report.summary
    )


@TRANSFORMS.register_module(force=True)
class HalfOf255(BaseTransform):
    """What a user writes for masks of 0 and 255."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results['gt_seg_map'] = (results['gt_seg_map'] > 127).astype(np.uint8)
        return results


def test_transforms_of_the_user_count(tmp_path: Path) -> None:
    write_pairs(tmp_path, [np.array([0, 255], np.uint8)[MAP % 2]])
    jpeg(tmp_path)
    steps = [*SEG_PIPELINE[:2], {'type': 'mmengine.HalfOf255'}, SEG_PIPELINE[2]]
    report = check(segmentation(tmp_path, 2, pipeline=steps))
    assert '2 of 2 classes in their label maps (a 66.7 %, b 33.3 %)' in report.summary


def test_palette_maps_are_indices(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    indexed = Image.fromarray(MAP, 'P')
    indexed.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    indexed.save(tmp_path / 'ann' / '0.png')
    assert '(a 50.0 %, b 33.3 %, c 16.7 %)' in check(segmentation(tmp_path)).summary


def test_images_without_label_maps_can_be_predicted(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    steps = [SEG_PIPELINE[0], SEG_PIPELINE[2]]
    dataset = segmentation(
        tmp_path, data_prefix={'img_path': 'img'}, pipeline=steps, test_mode=True
    )
    for prefix in ({'img_path': 'img'}, {'img_path': 'img', 'seg_map_path': 'nowhere'}):
        report = check({**dataset, 'data_prefix': prefix}, 'test')
        assert report.summary == 'test_dataloader.dataset: 1 images (all decoded)'


def test_labels_without_names(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    report = check(segmentation(tmp_path, metainfo={}))
    assert '(label 0 50.0 %, label 1 33.3 %, label 2 16.7 %)' in report.summary
    assert report.warnings == []


def test_no_images(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    sentence = f'there are no images whose names end in .jpg in {tmp_path}/img: check data_root'
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(segmentation(tmp_path, img_suffix='.jpg'))


def test_images_that_do_not_fit_into_one_batch(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP, np.concatenate([MAP, MAP])])
    assert check(segmentation(tmp_path), batch_size=2).warnings == []  # padded to 32
    sentence = (
        'images leave val_dataloader.dataset.pipeline in different sizes (30x20, 30x40), which do '
        'not fit into one batch of 2: set val_dataloader.batch_size=1'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(segmentation(tmp_path, test_mode=True), 'val', batch_size=2)
    assert check(segmentation(tmp_path, test_mode=True), 'val').warnings == []


def test_a_transform_that_fails_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, [MAP])
    wrong = {'type': 'RandomResize', 'scale': [(64, 32), (32, 16), (16, 8)]}
    steps = [*SEG_PIPELINE[:2], wrong, SEG_PIPELINE[2]]
    sentence = (
        'train_dataloader.dataset.pipeline.2 (RandomResize) fails on '
        f'{tmp_path}/img/0.png: AssertionError'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(segmentation(tmp_path, pipeline=steps))
    steps[2] = {'type': 'RandomResise'}
    with pytest.raises(UserError, match=r'pipeline\.2: there is no transform of type RandomRes'):
        check(segmentation(tmp_path, pipeline=steps))
