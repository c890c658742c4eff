"""Made-up clones of BCCD and CamVid, with known defects."""

from pathlib import Path

import cv2
import numpy as np
import pytest

# (class, xmin, ymin, xmax, ymax) as Pascal VOC writes them, in images of 60 x 40 pixels.
BOXES = {
    'a': [('RBC', 1, 1, 60, 40), ('WBC', 11, 6, 30, 25), ('RBC', 20, 20, 20, 20)],
    'b': [('Platelets', 51, 31, 66, 47), ('RBC', 0, 5, 10, 12), ('WBC', 70, 5, 80, 12)],
    'c': [('RBC', 5, 9, 14, 8)],
    'd': [],
}
SPLITS = {'train': ['a', 'b'], 'val': ['c', 'd']}


def picture(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def bccd(tmp_path: Path) -> Path:
    """A made-up clone; the XML files claim 100 x 100 pixels, the images have 60 x 40."""
    root = tmp_path / 'clone' / 'BCCD'
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (root / folder).mkdir(parents=True)
    for seed, (name, boxes) in enumerate(BOXES.items()):
        cv2.imwrite(str(root / 'JPEGImages' / f'{name}.jpg'), picture(seed))
        objects = ''.join(
            f'<object><name>{kind}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>'
            f'<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
            for kind, x1, y1, x2, y2 in boxes
        )
        (root / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><size><width>100</width><height>100</height></size>{objects}</annotation>'
        )
    for split, names in SPLITS.items():
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    return tmp_path / 'clone'


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A made-up clone whose label maps hold all of 0 to 11."""
    root = tmp_path / 'clone' / 'CamVid'
    for split, number in (('train', 3), ('val', 2)):
        (root / split).mkdir(parents=True)
        (root / f'{split}annot').mkdir()
        for k in range(number):
            labels = np.random.default_rng(k).integers(0, 12, (40, 60), np.uint8)
            cv2.imwrite(str(root / split / f'{k}.png'), picture(k))
            cv2.imwrite(str(root / f'{split}annot' / f'{k}.png'), labels)
    return tmp_path / 'clone'
