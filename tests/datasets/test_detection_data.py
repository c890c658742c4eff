"""The check of detection data: each fault with its sentence, and numbers that are mmdet's."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask
from support.data_checks import (
    DET_PIPELINE,
    Change,
    check,
    coco,
    detection,
    drop,
    each,
    edit,
    write_coco,
)

from mmse.datasets.coco_file import coco_classes
from mmse.datasets.findings import find_missing
from mmse.utils.errors import UserError

pytest.importorskip('mmdet')

MASKS = copy.deepcopy(DET_PIPELINE)
MASKS[1]['with_mask'] = True


def test_clean_data_have_a_summary_and_no_warning(tmp_path: Path) -> None:
    ann_file = write_coco(tmp_path)
    report = check(detection(tmp_path))
    assert report.summary == (
        f'{ann_file}: 4 images (all decoded), 0 without an object, 4 objects of 2 classes '
        '(cat 2, dog 2)'
    )
    assert report.warnings == []


VALUES: dict[str, tuple[Change, str]] = {
    'area null': (
        edit('annotations', 1, area=None),
        '1 annotations have area that is not a number (annotations[1].area is null): '
        "write width times height of 'bbox'",
    ),
    'area as text': (
        each('annotations', area='100'),
        '4 annotations have area that is not a number (annotations[0].area is "100", ',
    ),
    'no area': (
        drop('annotations', 'area'),
        '4 annotations have no area (annotations[0], annotations[1], annotations[2] and 1 more): '
        "write width times height of 'bbox'",
    ),
    'area 0 everywhere': (
        each('annotations', area=0),
        'there is no usable object of the classes cat, dog',
    ),
    'width as text': (
        each('images', width='60'),
        '4 images have width that is not a number above 0 (images[0].width is "60", ',
    ),
    'sizes of VIA': (
        each('images', width=-1, height=-1),
        '(images[0].height is -1, images[1].height is -1, images[2].height is -1 and 1 more): '
        "write the file's height in pixels",
    ),
    'no file name': (
        edit('images', 2, file_name=None),
        '1 images have file_name that is not the name of a file (images[2].file_name is null)',
    ),
    'names that are numbers': (
        edit('categories', 0, name=3),
        '1 categories have name that is not a text (categories[0].name is 3): put the name in '
        'quotes',
    ),
    'a box of three numbers': (
        edit('annotations', 2, bbox=[1, 2, 3]),
        'annotations have bbox that is not four numbers (annotations[2].bbox is [1, 2, 3])',
    ),
    'a box that is not finite': (
        edit('annotations', 2, bbox=[1, 2, 3, float('nan')]),
        'annotations have bbox that is not four numbers',
    ),
    'iscrowd as text': (
        each('annotations', iscrowd='0'),
        '4 annotations have iscrowd that is not 0 or 1 (annotations[0].iscrowd is "0", ',
    ),
    'ignore as text': (
        edit('annotations', 0, ignore='false'),
        'annotations have ignore that is not 0 or 1 (annotations[0].ignore is "false"): '
        'write 0 for an ordinary object',
    ),
    'no images': (lambda c: c.pop('images'), "it has no list 'images'"),
    'no annotations': (lambda c: c.pop('annotations'), "it has no list 'annotations'; to predict"),
    'annotations that are null': (
        lambda c: c.update(annotations=None),
        "it has no list 'annotations'",
    ),
    'entries that are numbers': (lambda c: c.update(images=[3]), "'images' holds 3"),
    'no categories': (
        lambda c: c.update(categories=[], annotations=[]),
        'there are no categories',
    ),
    'unknown image': (
        edit('annotations', 2, image_id=8),
        '1 annotations have an unknown image_id (id 3: 8)',
    ),
    'ids as text and as numbers': (
        edit('annotations', 2, image_id='2'),
        '1 annotations have an unknown image_id (id 3: "2"): it is a text in one place and a '
        'number in the other',
    ),
    'ids twice': (edit('annotations', 2, id=4), '1 annotation ids occur more than once (4)'),
    'image ids twice': (edit('images', 2, id=3), '1 image ids occur more than once (3)'),
    'category ids twice': (
        edit('categories', 1, id=9),
        '1 category ids occur more than once (9)',
    ),
    'a name twice': (
        lambda c: c['categories'].insert(0, {'id': 0, 'name': 'cat'}),
        '2 categories are called cat (ids 0, 9), and no annotation has id 0: take that entry out '
        'of "categories"',
    ),
    'a name twice, both used': (
        edit('categories', 1, name='cat'),
        '2 categories are called cat (ids 9, 7): give each a name of its own',
    ),
    'other classes': (
        edit('categories', 1, name='cow'),
        'has no class dog: its classes are cat, cow',
    ),
    'another order': (
        lambda c: c['categories'].reverse(),
        'lists its classes as dog, cat, the config as cat, dog: mmdet numbers them in the order',
    ),
    'boxes as fractions': (
        each('annotations', bbox=[0.1, 0.1, 0.5, 0.5]),
        'all boxes lie between 0 and 1: COCO boxes are [x, y, width, height] in pixels, so '
        'multiply them by the width and height of their image',
    ),
    'boxes as corners': (
        each('annotations', bbox=[30, 10, 50, 30], area=1500),
        '4 of 4 boxes reach past their image ([30, 10, 80, 40] in ',
    ),
    'boxes as corners, inside their images': (
        each('annotations', bbox=[5, 5, 20, 15], area=150),
        'all boxes are [x1, y1, x2, y2], as their areas tell: COCO boxes are [x, y, width, height]',
    ),
    'sizes of other images': (
        each('images', width=120, height=80),
        '4 images are not of the size that the annotations give (width x height), so boxes do not '
        'fit: give the images that were labelled, or scale sizes and boxes ({img}/0.png: 120x80, '
        'the image 60x40, ',
    ),
    'missing images': (
        edit('images', 1, file_name='x/1.png'),
        '1 images are missing ({img}/x/1.png)',
    ),
    'all crowd': (
        each('annotations', iscrowd=1),
        'all 4 objects are crowd regions (iscrowd 1), which are neither trained nor scored',
    ),
    'all ignored': (
        each('annotations', ignore=1),
        'there is no usable object of the classes cat, dog; to predict',
    ),
}


@pytest.mark.parametrize('fault', VALUES)
def test_what_stops_a_training(tmp_path: Path, fault: str) -> None:
    change, sentence = VALUES[fault]
    write_coco(tmp_path, change)
    with pytest.raises(UserError) as caught:
        check(detection(tmp_path))
    assert sentence.format(img=tmp_path / 'img') in str(caught.value)
    assert str(tmp_path / 'ann.json') in str(caught.value)


def test_reasons_are_given_where_no_object_is_left(tmp_path: Path) -> None:
    write_coco(tmp_path, each('annotations', area=0))
    with pytest.raises(UserError, match=r'leaves out 4 objects: 4 with area 0 \(it is width times'):
        check(detection(tmp_path))


@pytest.mark.parametrize(
    ('prefix', 'encoding', 'words'),
    [
        (b'\xef\xbb\xbf', 'utf-8', 'begins with a byte order mark, which pycocotools does not'),
        (b'', 'utf-16', 'is in UTF-16, which pycocotools does not read: save it as UTF-8'),
        (b'', 'latin-1', 'is not in UTF-8: save it as UTF-8'),
    ],
)
def test_encodings(tmp_path: Path, prefix: bytes, encoding: str, words: str) -> None:
    content = coco()
    content['categories'][0]['name'] = 'Kätzchen'
    text = json.dumps(content, ensure_ascii=False)
    (tmp_path / 'ann.json').write_bytes(prefix + text.encode(encoding))
    with pytest.raises(UserError, match=re.escape(words)):
        coco_classes(tmp_path / 'ann.json')


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'the annotation file .*none\.json cannot be read'):
        coco_classes(tmp_path / 'none.json')
    (tmp_path / 'broken.json').write_text('{"images": [')
    with pytest.raises(UserError, match=r'the annotation file .*broken\.json is not JSON'):
        coco_classes(tmp_path / 'broken.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(UserError, match=r'list\.json is not in COCO format: it has no list'):
        coco_classes(tmp_path / 'list.json')


NOTES: dict[str, tuple[Change, str]] = {
    'no extent': (
        edit('annotations', 1, bbox=[5, 5, 0, 10]),
        'mmdet leaves out 1 objects: 1 without extent',
    ),
    'outside': (
        edit('annotations', 1, bbox=[70, 5, 10, 10]),
        'mmdet leaves out 1 objects: 1 outside their image',
    ),
    'area 0': (
        edit('annotations', 1, area=0),
        'mmdet leaves out 1 objects: 1 with area 0 (it is width times height)',
    ),
    'ignored': (
        edit('annotations', 1, ignore=True),
        'mmdet leaves out 1 objects: 1 marked "ignore"',
    ),
    'thin': (
        edit('annotations', 1, bbox=[5, 5, 0.5, 10]),
        'mmdet leaves out 1 objects: 1 less than a pixel wide or high',
    ),
    'past the border': (
        edit('annotations', 1, bbox=[55, 5, 10, 10]),
        '1 boxes reach past their image ([55, 5, 65, 15] in {img}/1.png)',
    ),
    'crowd': (
        edit('annotations', 1, iscrowd=1),
        '1 of 4 objects are crowd regions (iscrowd 1), which are neither trained nor scored: '
        'write iscrowd 0 for what is one object',
    ),
    'a class more': (
        lambda c: c['categories'].append({'id': 1, 'name': 'cow'}),
        '1 classes of the file are not trained (cow (0 objects))',
    ),
    'a class without objects': (
        each('annotations', category_id=7),
        '1 classes have no object (cat)',
    ),
}


@pytest.mark.parametrize('what', NOTES)
def test_what_is_worth_knowing(tmp_path: Path, what: str) -> None:
    change, note = NOTES[what]
    ann_file = write_coco(tmp_path, change)
    note = note.format(img=tmp_path / 'img')
    assert check(detection(tmp_path)).warnings == [f'{ann_file}: {note}']


def test_box_one_pixel_over_the_border_is_rounding(tmp_path: Path) -> None:
    write_coco(tmp_path, edit('annotations', 0, bbox=[-0.5, 5, 61.0, 35.9]))
    assert check(detection(tmp_path)).warnings == []


def test_training_needs_less_than_an_evaluation(tmp_path: Path) -> None:
    ann_file = write_coco(tmp_path, lambda c: [a.pop('iscrowd') for a in c['annotations']])
    assert check(detection(tmp_path)).warnings == []
    with pytest.raises(UserError, match=r'4 annotations have no iscrowd, which COCOeval reads'):
        check(detection(tmp_path, test_mode=True), 'val')
    write_coco(tmp_path, lambda c: [a.update(id=f'uuid-{a["id"]}') for a in c['annotations']])
    assert check(detection(tmp_path)).warnings == []
    with pytest.raises(UserError, match=r'4 annotations have a text as id, and COCOeval needs'):
        check(detection(tmp_path, test_mode=True), 'val')
    write_coco(tmp_path, edit('annotations', 1, id=0))
    sentence = (
        f'{ann_file}: an annotation has id 0 (in 1.png), which COCOeval takes for "no match", so '
        'that its object would count as missed: number the annotations from 1'
    )
    assert check(detection(tmp_path)).warnings == []
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(detection(tmp_path, test_mode=True), 'test')


@pytest.mark.parametrize(
    'change', [lambda c: c.update(annotations=[]), lambda c: c.pop('annotations')]
)
def test_predictions_need_no_ground_truth(tmp_path: Path, change: Change) -> None:
    write_coco(tmp_path, change)
    dataset = detection(tmp_path, test_mode=True)
    report = check(dataset, 'test', metrics=[{'type': 'CocoMetric', 'format_only': True}])
    assert '4 images (all decoded), 4 without an object, 0 objects' in report.summary
    assert report.warnings == []
    with pytest.raises(UserError, match='set format_only=True and outfile_prefix of test_eval'):
        check(dataset, 'test')


def test_images_that_filters_leave_out(tmp_path: Path) -> None:
    ann_file = write_coco(
        tmp_path,
        each('images', file_name='0.png'),
        lambda c: c.update(annotations=c['annotations'][:1]),
    )
    rules = {'filter_empty_gt': True, 'min_size': 32}
    report = check(detection(tmp_path, filter_cfg=rules))
    assert '1 images (all decoded), 0 without an object, 1 objects' in report.summary
    assert report.warnings[0] == (
        f'{ann_file}: 3 of 4 images are left out of the training, because they are without an '
        'object: train_dataloader.dataset.filter_cfg.filter_empty_gt=False keeps them'
    )
    rules = {'filter_empty_gt': False, 'min_size': 41}
    sentence = (
        '4 of 4 images are left out of the training, because they are less than 41 pixels wide or '
        'high: train_dataloader.dataset.filter_cfg.min_size=0 keeps them'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(detection(tmp_path, filter_cfg=rules))


RLE = {'size': [40, 60], 'counts': [0, 20, 2380]}
SEGMENTATIONS: list[tuple[Any, str]] = [
    ([], 'objects have no mask (segmentation): add masks, or take a detector without a mask head'),
    (
        [5, 5, 15, 5, 15, 15],
        "objects have one list of numbers as 'segmentation': write a list of polygons, "
        '[[x1, y1, x2, y2, ...]]',
    ),
    ({**RLE, 'size': [60, 40]}, 'objects have run lengths (segmentation.size) of another size'),
    (
        [[[5, 5], [15, 5], [15, 15]]],
        "objects have polygons that are no lists of numbers as 'segmentation': write [[x1, y1, ",
    ),
    ([[1, 2, 3, 4]], 'set aside'),
    ({'size': [40, 60]}, 'set aside'),
    (RLE, ''),
    (
        {
            'size': [40, 60],
            'counts': coco_mask.frPyObjects(RLE, 40, 60)['counts'].decode(),
        },
        '',
    ),
]


@pytest.mark.parametrize(('mask', 'words'), SEGMENTATIONS)
def test_masks_end_as_mmdet_uses_them(tmp_path: Path, mask: Any, words: str) -> None:
    write_coco(tmp_path, edit('annotations', 1, segmentation=mask))
    dataset = detection(tmp_path, pipeline=MASKS)
    init_default_scope('mmdet')
    built = DATASETS.build({**dataset, 'pipeline': MASKS[:2]})
    assert check(detection(tmp_path)).warnings == []  # boxes need none
    if words in ('', 'set aside'):
        ignored = sum(int(item['gt_ignore_flags'].sum()) for item in built)
        report = check(dataset)
        assert f'{4 - ignored} objects' in report.summary
        notes = ['1 objects have no usable mask and are set aside'] if ignored else []
        assert [w.split(': ')[1].split(' (')[0] for w in report.warnings] == notes
        return
    # Of these, mmdet makes another mask or none without a word.
    if not any(text in words for text in ('run lengths', 'polygons that')):
        with pytest.raises((KeyError, TypeError, AssertionError)):
            list(built)
    with pytest.raises(UserError, match=re.escape(f'1 {words}')):
        check(dataset)


def test_a_loader_of_polygons_only(tmp_path: Path) -> None:
    write_coco(tmp_path, edit('annotations', 1, segmentation=RLE))
    steps = copy.deepcopy(MASKS)
    steps[1]['poly2mask'] = False
    report = check(detection(tmp_path, pipeline=steps))
    assert '3 objects of 2 classes' in report.summary
    assert '1 objects have no usable mask and are set aside' in report.warnings[0]


ODD: list[Any] = [None, '', 'x', 0, -1, 0.5, float('nan'), True, [], {}, [1], [[None]], {'a': 1}]


@pytest.mark.parametrize('part', ['images', 'annotations', 'categories'])
def test_any_value_ends_in_a_sentence_or_loads(tmp_path: Path, part: str) -> None:
    init_default_scope('mmdet')
    for key in [*coco()[part][0], 'ignore']:
        for value in ODD:
            write_coco(tmp_path, edit(part, 1, **{key: value}))
            dataset = detection(tmp_path, pipeline=MASKS)
            try:
                check(dataset)
            except UserError:
                continue
            assert len(list(DATASETS.build(dataset))) == 4, f'{part} {key} {value!r}'


def test_a_name_in_other_letters_is_found(tmp_path: Path) -> None:
    write_coco(tmp_path, edit('images', 1, file_name='images/1.PNG'))
    img = tmp_path / 'img'
    sentence = f'1 images are missing ({img}/images/1.PNG), but there is {img}/1.png'
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(detection(tmp_path))


def test_masks_of_an_evaluation(tmp_path: Path) -> None:
    write_coco(tmp_path, edit('annotations', 1, segmentation=[]))
    segm = [{'type': 'CocoMetric', 'metric': ['bbox', 'segm']}]
    dataset = detection(tmp_path, test_mode=True)
    assert check(dataset, 'val').warnings == []
    with pytest.raises(UserError, match='1 objects have no mask'):
        check(dataset, 'val', metrics=segm)


@pytest.mark.parametrize('seed', range(5))
def test_numbers_are_those_of_the_built_data_set(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = coco()
    (tmp_path / 'img').mkdir()
    for image in content['images']:
        width, height = rng.integers(20, 60, 2).tolist()
        image.update(width=width, height=height)
        Image.new('RGB', (width, height)).save(tmp_path / 'img' / image['file_name'])
    content['annotations'] = [
        {
            'id': k + 1,
            'image_id': int(rng.integers(3)),  # the last image has none
            'category_id': int(rng.choice([9, 7])),
            'bbox': [*rng.uniform(-3, 18, 2).tolist(), *rng.uniform(0.5, 12, 2).tolist()],
            'area': int(rng.choice([0, 5], p=[0.2, 0.8])),
            'iscrowd': int(rng.random() < 0.2),
            'ignore': int(rng.random() < 0.2),
        }
        for k in range(40)
    ]
    write_coco(tmp_path, lambda c: c.update(content))
    rules = {'filter_empty_gt': True, 'min_size': 25}
    dataset = detection(tmp_path, filter_cfg=rules)
    init_default_scope('mmdet')
    built = DATASETS.build(dataset)
    instances = [i for k in range(len(built)) for i in built.get_data_info(k)['instances']]
    kept = [i['bbox_label'] for i in instances if not i['ignore_flag']]
    report = check(dataset)
    assert f' {len(built)} images (all decoded), ' in report.summary
    counts = f'{len(kept)} objects of 2 classes (cat {kept.count(0)}, dog {kept.count(1)})'
    assert report.summary.endswith(counts)
    ids = {built.get_data_info(k)['img_id'] for k in range(len(built))}
    given = sum(a['image_id'] in ids for a in content['annotations'])
    assert f'mmdet leaves out {given - len(instances)} objects: ' in '; '.join(report.warnings)
    crowd = len(instances) - len(kept)
    assert f'{crowd} of {len(instances)} objects are crowd' in '; '.join(report.warnings)


def test_classes_come_in_the_order_in_which_mmdet_numbers_them(tmp_path: Path) -> None:
    ann_file = write_coco(tmp_path)
    names = coco_classes(ann_file)
    assert names == ('cat', 'dog')
    init_default_scope('mmdet')
    dataset = DATASETS.build(detection(tmp_path))
    labels = [dataset.get_data_info(k)['instances'][0]['bbox_label'] for k in range(4)]
    assert [names[label] for label in labels] == ['cat', 'dog', 'cat', 'dog']


def test_missing_files_are_found_by_listing_folders(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f'{k}').touch()
    wanted = [tmp_path / f'{k}' for k in range(5)]
    assert find_missing([*wanted, tmp_path / 'no' / 'x']) == [
        str(tmp_path / '3'),
        str(tmp_path / '4'),
        str(tmp_path / 'no' / 'x'),
    ]
