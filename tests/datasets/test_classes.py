"""Class names of a folder of label maps."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmse.datasets.classes import scan_labels, seg_classes
from mmse.utils.errors import UserError


def write(folder: Path, *maps: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    for k, values in enumerate(maps):
        kind = np.uint16 if max(values) > 255 else np.uint8
        cv2.imwrite(str(folder / f'{k}.png'), np.array([values] * 4, kind))


def test_classes_up_to_the_highest_label(tmp_path: Path) -> None:
    ann = tmp_path / 'ann'
    write(ann, [0, 1, 255], [2, 0, 0])
    assert scan_labels(ann) == 3
    assert seg_classes(tmp_path, ann) == ('class_0', 'class_1', 'class_2')
    write(ann, [0, 1, 255], [4, 2, 6])
    assert scan_labels(ann) == 7
    (ann / '1.png').rename(ann / '1.PNG')
    (ann / '._0.png').write_bytes(b'Mac OS X')
    (ann / 'town').mkdir()
    (ann / '0.png').rename(ann / 'town' / '0.png')
    assert scan_labels(ann) == 7


@pytest.mark.parametrize(
    ('maps', 'sentence'),
    [
        (
            [[0, 255], [255, 0]],
            'the 2 label maps in {ann} hold only 0 and 255, and 255 is left out of the loss, so '
            'there is nothing to tell apart: if 255 is a class, write its number instead, such as '
            '1',
        ),
        (
            [[0, 50, 100]],
            'the 1 label maps in {ann} hold the labels 0, 50, 100, which are no numbers of classes '
            'but grey values or ids: number the classes from 0 to 2, or name all 101 in '
            'classes.txt',
        ),
        ([[0, 128]], 'hold the labels 0, 128, which are no numbers'),
        ([[0, 257]], '{ann}: 1 label maps have labels that the loader folds to 8 bits'),
        ([[255, 255]], 'the 1 label maps in {ann} hold nothing but 255'),
    ],
)
def test_labels_that_are_none_of_classes(
    tmp_path: Path, maps: list[list[int]], sentence: str
) -> None:
    write(tmp_path / 'ann', *maps)
    with pytest.raises(UserError, match=re.escape(sentence.format(ann=tmp_path / 'ann'))):
        seg_classes(tmp_path, tmp_path / 'ann')


def test_colour_maps_and_damaged_ones(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match='1 label maps have several channels, but a label map'):
        scan_labels(tmp_path)
    (tmp_path / 'a.png').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'a\.png is no readable image'):
        scan_labels(tmp_path)
    (tmp_path / 'a.png').unlink()
    with pytest.raises(UserError, match=r'has no label maps \(\.png, \.bmp, '):
        scan_labels(tmp_path)


def test_names_of_a_file(tmp_path: Path) -> None:
    names = tmp_path / 'classes.txt'
    names.write_bytes(b'\xef\xbb\xbfroad\r\n\r\n traffic light \r\n')
    assert seg_classes(tmp_path, tmp_path / 'ann') == ('road', 'traffic light')
    names.write_text('3 wheeler\nC#\nroad, wet\n')
    assert seg_classes(tmp_path, tmp_path / 'ann') == ('3 wheeler', 'C#', 'road, wet')
    names.write_text('1 euro\n2 euro\n')
    assert seg_classes(tmp_path, tmp_path / 'ann') == ('1 euro', '2 euro')
    for text, sentence in {
        'road\ncar\nroad\n': r'classes\.txt: 1 class names occur more than once \(road\)',
        '\n': r'classes\.txt is empty: write one class name per line, in label order',
        'Stra\xdfe\n': r'classes\.txt is not in UTF-8: save it as UTF-8',
        '# names\nroad\ncar\n': r'classes\.txt has a comment \(# names, road and 1 more\)',
        '0 road\n1: car\n': r'classes\.txt numbers its names \(0 road, 1: car\)',
        '["road", "car"]': r'classes\.txt is JSON',
        '- road\n- car\n': r'classes\.txt is YAML \(- road, - car\)',
        'road,car': r'classes\.txt has all names in one line \(road,car\)',
    }.items():
        names.write_bytes(text.encode('latin-1'))
        with pytest.raises(UserError, match=sentence):
            seg_classes(tmp_path, tmp_path / 'ann')
