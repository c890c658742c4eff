"""The checks before training, each with a made-up defect and its exact count and name."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmse.datasets.coco_checks import check_coco, coco_classes
from mmse.datasets.seg_checks import check_seg_pairs, scan_labels, seg_classes
from mmse.utils.errors import UserError


def coco() -> dict:
    """Four images of 60 x 40 with one box each of the classes cat, dog, cat, dog."""
    return {
        'images': [
            {'id': k, 'file_name': f'sub/{k}.jpg', 'width': 60, 'height': 40} for k in range(4)
        ],
        'annotations': [
            {
                'id': k + 1,
                'image_id': k,
                'category_id': 7 if k % 2 else 9,
                'bbox': [5, 5, 10, 10],
                'area': 100,
                'iscrowd': 0,
            }
            for k in range(4)
        ],
        'categories': [{'id': 9, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    }


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], tuple[Path, Path]]:
    """Writes annotations beside four (empty) image files."""
    (tmp_path / 'images' / 'sub').mkdir(parents=True)
    for k in range(4):
        (tmp_path / 'images' / 'sub' / f'{k}.jpg').touch()

    def write(content: object) -> tuple[Path, Path]:
        (tmp_path / 'ann.json').write_text(json.dumps(content))
        return tmp_path / 'ann.json', tmp_path / 'images'

    return write


def test_clean_coco_has_a_summary_and_no_warning(save: Callable) -> None:
    ann_file, img_dir = save(coco())
    report = check_coco(ann_file, img_dir)
    assert report.summary == f'{ann_file}: 4 images (0 without a box), 4 boxes of 2 classes'
    assert report.classes == ('cat', 'dog')
    assert report.warnings == []


def test_classes_come_in_the_order_in_which_mmdet_numbers_them(save: Callable) -> None:
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    ann_file, _ = save(coco())
    names = coco_classes(ann_file)
    assert names == ('cat', 'dog')
    dataset = CocoDataset(
        ann_file=str(ann_file), data_prefix={'img': ''}, metainfo={'classes': names}
    )
    labels = [dataset.get_data_info(k)['instances'][0]['bbox_label'] for k in range(4)]
    assert [names[label] for label in labels] == ['cat', 'dog', 'cat', 'dog']


def edit(part: str, index: int, **values: object) -> Callable[[dict], None]:
    return lambda content: content[part][index].update(values)


def drop(part: str, index: int, key: str) -> Callable[[dict], None]:
    return lambda content: content[part][index].pop(key)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (edit('images', 1, file_name='sub/9.jpg'), '1 images are not in {img} ({img}/sub/9.jpg)'),
        (
            lambda c: [i.update(file_name=f'x/{i["id"]}.jpg') for i in c['images']],
            '4 images are not in {img} ({img}/x/0.jpg, {img}/x/1.jpg, {img}/x/2.jpg and 1 more)',
        ),
        (edit('annotations', 2, image_id=8), '1 annotations have an unknown image_id (id 3)'),
        (edit('annotations', 2, category_id=8), '1 annotations have an unknown category_id (id 3)'),
        (edit('annotations', 2, bbox=[1, 2, 3]), '1 boxes are not four numbers (id 3)'),
        (edit('annotations', 2, id=4), '1 annotation ids occur more than once (4)'),
        (edit('images', 2, id=3), '1 image ids occur more than once (3)'),
        (edit('categories', 1, name='cat'), '1 category names occur more than once (cat)'),
        (edit('categories', 1, id=9), '1 category ids occur more than once (9)'),
        (drop('annotations', 0, 'iscrowd'), "an entry of 'annotations' has no iscrowd"),
        (drop('images', 3, 'width'), "an entry of 'images' has no width"),
        (lambda c: c.pop('categories'), "it has no list 'categories'"),
        (lambda c: c.update(images=[3]), "'images' holds 3"),
        (lambda c: c.update(categories=[], annotations=[]), 'there are no categories'),
        (lambda c: c.update(annotations=[]), 'has no usable box of the classes cat, dog'),
        (
            lambda c: [a.update(bbox=[30, 10, 50, 30]) for a in c['annotations'][:3]],
            '3 of 4 boxes reach past their image (id 1 in sub/0.jpg, id 2 in sub/1.jpg, '
            'id 3 in sub/2.jpg): COCO boxes are [x, y, width, height] in pixels',
        ),
    ],
)
def test_what_stops_a_training(save: Callable, change: Callable, message: str) -> None:
    content = coco()
    change(content)
    ann_file, img_dir = save(content)
    with pytest.raises(UserError, match=re.escape(message.format(img=img_dir))):
        check_coco(ann_file, img_dir)


@pytest.mark.parametrize(
    ('change', 'warning'),
    [
        (
            edit('annotations', 1, bbox=[5, 5, 0, 10]),
            '1 boxes have no extent and will be skipped (id 2 in sub/1.jpg)',
        ),
        (
            edit('annotations', 1, bbox=[70, 5, 10, 10]),
            '1 boxes have no extent and will be skipped (id 2 in sub/1.jpg)',
        ),
        (
            edit('annotations', 1, area=0),
            '1 boxes have no extent and will be skipped (id 2 in sub/1.jpg)',
        ),
        (
            edit('annotations', 1, bbox=[55, 5, 10, 10]),
            '1 boxes reach past their image (id 2 in sub/1.jpg)',
        ),
        (
            lambda c: c['categories'].append({'id': 1, 'name': 'cow'}),
            '1 classes have no box (cow)',
        ),
    ],
)
def test_what_is_worth_knowing(save: Callable, change: Callable, warning: str) -> None:
    content = coco()
    change(content)
    ann_file, img_dir = save(content)
    assert check_coco(ann_file, img_dir).warnings == [f'{ann_file}: {warning}']


def test_box_one_pixel_over_the_border_is_rounding(save: Callable) -> None:
    content = coco()
    content['annotations'][0]['bbox'] = [-0.5, 5, 61.0, 35.9]
    assert check_coco(*save(content)).warnings == []


def test_skipped_boxes_are_those_that_mmdet_skips(save: Callable) -> None:
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    content = coco()
    boxes = [[5, 5, 0.5, 10], [70, 5, 10, 10], [59.9, 39.9, 4, 4], [-3, -3, 3, 3]]
    for annotation, box in zip(content['annotations'], boxes, strict=True):
        annotation['bbox'] = box
    extra = [{**content['annotations'][0], 'id': 10 + k, 'bbox': [5, 5, 9, 9]} for k in range(3)]
    content['annotations'] += extra
    ann_file, img_dir = save(content)
    dataset = CocoDataset(
        ann_file=str(ann_file), data_prefix={'img': ''}, metainfo={'classes': ('cat', 'dog')}
    )
    read = sum(len(dataset.get_data_info(k)['instances']) for k in range(4))
    assert read == 4
    report = check_coco(ann_file, img_dir)
    assert ' 4 boxes of 2 classes' in report.summary
    assert '3 boxes have no extent' in report.warnings[0]


def test_classes_of_the_config_are_compared_with_the_file(save: Callable) -> None:
    ann_file, img_dir = save(coco())
    report = check_coco(ann_file, img_dir, classes=['dog'])
    assert report.classes == ('dog',)
    assert report.summary.endswith('4 images (0 without a box), 2 boxes of 1 classes')
    assert report.warnings == [f'{ann_file}: 1 classes of the file are not trained (cat (2 boxes))']
    with pytest.raises(UserError, match='has no class bird: its classes are cat, dog'):
        check_coco(ann_file, img_dir, classes=('cat', 'bird'))
    with pytest.raises(UserError, match='lists its classes as cat, dog, the config as dog, cat'):
        check_coco(ann_file, img_dir, classes=('dog', 'cat'))


def test_annotation_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'the annotation file .*none\.json cannot be read'):
        check_coco(tmp_path / 'none.json', tmp_path)
    (tmp_path / 'broken.json').write_text('{"images": [')
    with pytest.raises(UserError, match=r'the annotation file .*broken\.json is not JSON'):
        coco_classes(tmp_path / 'broken.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(UserError, match=r'list\.json is not in COCO format: it has no list'):
        coco_classes(tmp_path / 'list.json')


def test_many_images_in_one_folder_are_checked_quickly(tmp_path: Path) -> None:
    number = 5_000
    content = coco()
    content['images'] = [
        {**content['images'][0], 'id': k, 'file_name': f'{k}'} for k in range(number)
    ]
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    for k in range(number - 2):
        (tmp_path / f'{k}').touch()
    start = time.perf_counter()
    with pytest.raises(UserError, match=f'2 images are not in .*{number - 2}.*{number - 1}'):
        check_coco(tmp_path / 'ann.json', tmp_path)
    assert time.perf_counter() - start < 3


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Ten images of 30 x 20 whose label maps hold 0, 1, 2 and 255."""
    (tmp_path / 'img').mkdir()
    (tmp_path / 'ann').mkdir()
    labels = np.tile(np.array([0, 1, 2, 255, 0, 1], np.uint8), (20, 5))
    found = []
    for k in range(10):
        image, label = tmp_path / 'img' / f'{k}.jpg', tmp_path / 'ann' / f'{k}.png'
        cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
        cv2.imwrite(str(label), labels)
        found.append((image, label))
    return found


def test_clean_pairs(pairs: list) -> None:
    report = check_seg_pairs(pairs, num_classes=3)
    assert report.summary == '10 images with label maps, 10 of them read: 3 of 3 classes seen'
    assert report.warnings == []
    assert report.classes == (0, 1, 2)


def test_class_that_is_never_seen_is_named(pairs: list) -> None:
    report = check_seg_pairs(pairs, num_classes=5)
    assert report.warnings == ['2 classes are in none of the 10 label maps read (label 3, label 4)']


def test_labels_out_of_range_are_counted_and_named(pairs: list) -> None:
    cv2.imwrite(str(pairs[4][1]), np.full((20, 30), 9, np.uint8))
    message = (
        f'of 10 label maps read, 1 label maps have labels other than 0 to 2 and 255 '
        f'({pairs[4][1]} has 9)'
    )
    with pytest.raises(UserError, match=re.escape(message)):
        check_seg_pairs(pairs, num_classes=3)
    with pytest.raises(UserError, match=r'10 label maps have labels other than 0 to 1 and 255'):
        check_seg_pairs(pairs, num_classes=2)
    with pytest.raises(UserError, match=r'0 to 2 and 254 .*0\.png has 255\)'):
        check_seg_pairs(pairs[:1], num_classes=3, ignore_index=254)


@pytest.mark.parametrize('raw', [0, 1, 2, 3, 4, 254, 255])
def test_reduced_labels_follow_mmseg(tmp_path: Path, raw: int) -> None:
    """A raw label is fine exactly where mmseg's loader makes 0, 1, 2 or 255 of it."""
    pytest.importorskip('mmseg')
    from mmseg.datasets.transforms import LoadAnnotations

    image, label = tmp_path / 'a.jpg', tmp_path / 'a.png'
    cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(label), np.full((20, 30), raw, np.uint8))
    loaded = LoadAnnotations()(
        {'seg_map_path': str(label), 'reduce_zero_label': True, 'seg_fields': []}
    )['gt_seg_map']
    if int(loaded[0, 0]) in (0, 1, 2, 255):
        check_seg_pairs([(image, label)], num_classes=3, reduce_zero_label=True)
    else:
        with pytest.raises(UserError, match=f'labels other than 1 to 3 and 255 .* has {raw}'):
            check_seg_pairs([(image, label)], num_classes=3, reduce_zero_label=True)


def test_reads_at_most_so_many_evenly_spaced(pairs: list) -> None:
    for k in (1, 2, 4, 5, 7, 8):
        pairs[k][1].write_bytes(b'broken, but not read')
    with pytest.raises(UserError, match=r'ann/1\.png is not a readable image'):
        check_seg_pairs(pairs, num_classes=3)
    report = check_seg_pairs(pairs, num_classes=3, max_read=3)
    assert '10 images with label maps, 3 of them read' in report.summary


def test_size_mismatch_and_missing_files(pairs: list) -> None:
    cv2.imwrite(str(pairs[3][1]), np.zeros((20, 31), np.uint8))
    with pytest.raises(
        UserError, match=r'1 label maps differ in size .*3\.png is 31x20, its .*30x20'
    ):
        check_seg_pairs(pairs, num_classes=3)
    pairs[3][1].unlink()
    pairs[6][0].unlink()
    message = f'1 images are missing ({pairs[6][0]}); 1 label maps are missing ({pairs[3][1]})'
    with pytest.raises(UserError, match=re.escape(message)):
        check_seg_pairs(pairs, num_classes=3)
    with pytest.raises(UserError, match='there are no images'):
        check_seg_pairs([], num_classes=3)


def test_palette_maps_are_indices_and_colour_maps_are_refused(pairs: list) -> None:
    palette = Image.fromarray(np.full((20, 30), 2, np.uint8)).convert('P')
    indexed = Image.new('P', (30, 20), 2)
    indexed.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    assert palette.mode == indexed.mode == 'P'
    indexed.save(pairs[0][1])
    assert check_seg_pairs(pairs[:1], num_classes=3).classes == (2,)
    cv2.imwrite(str(pairs[1][1]), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(UserError, match=r'1\.png has 3 channels: a label map has one'):
        check_seg_pairs(pairs, num_classes=3)


def test_damaged_label_map_is_named(pairs: list) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (200, 300), np.uint8)
    cv2.imwrite(str(pairs[2][1]), noise)
    pairs[2][1].write_bytes(pairs[2][1].read_bytes()[:2000])
    with pytest.raises(UserError, match=r'ann/2\.png is damaged'):
        check_seg_pairs(pairs, num_classes=3)


def test_classes_of_own_label_maps(pairs: list, tmp_path: Path) -> None:
    assert scan_labels(tmp_path / 'ann') == 3
    cv2.imwrite(str(pairs[9][1]), np.array([[0, 6], [255, 1]], np.uint8))
    assert scan_labels(tmp_path / 'ann') == 7
    assert scan_labels(tmp_path / 'ann', ignore_index=6) == 256
    assert seg_classes(tmp_path, tmp_path / 'ann') == tuple(f'class_{k}' for k in range(7))
    (tmp_path / 'classes.txt').write_text('road\n\n traffic light \n')
    assert seg_classes(tmp_path, tmp_path / 'ann') == ('road', 'traffic light')
    (tmp_path / 'classes.txt').write_text('road\ncar\nroad\n')
    with pytest.raises(UserError, match=r'classes\.txt: 1 class names occur more than once \(road'):
        seg_classes(tmp_path, tmp_path / 'ann')
    (tmp_path / 'classes.txt').write_text('\n')
    with pytest.raises(UserError, match=r'classes\.txt is empty'):
        seg_classes(tmp_path, tmp_path / 'ann')


def test_no_labels_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'has no label maps \(\.png\)'):
        scan_labels(tmp_path)
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((4, 4), 255, np.uint8))
    with pytest.raises(UserError, match=r'the 1 label maps in .* hold nothing but 255'):
        scan_labels(tmp_path)
