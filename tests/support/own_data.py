"""Small data sets as a user has them, and the configs that README tells the user to write."""

import json
from pathlib import Path

import cv2
import numpy as np
from support.engine import CONFIGS

# Not in the order of the names or ids, which are not 1 to 3 either.
CATEGORIES = {7: 'nut', 3: 'bolt', 12: 'gear'}
SIZES = ((72, 64), (64, 96), (80, 80), (56, 72))  # width, height


def draw_photo(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with one filled box of each class, and its label map (0 = nothing)."""
    width, height = size
    photo = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    for k in range(3):
        x, y = 4 + k * width // 3, int(rng.integers(2, height - 24))
        labels[y : y + 20, x : x + 14] = k + 1
        photo[y : y + 20, x : x + 14, k] = 220
    return photo, labels


def write_detection(root: Path, splits: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    (root / 'photos').mkdir(parents=True)
    for split, count in splits.items():
        images, annotations = [], []
        for i in range(count):
            width, height = SIZES[i % len(SIZES)]
            photo, labels = draw_photo(rng, (width, height))
            name = f'{split}_{i}.jpg'
            cv2.imwrite(str(root / 'photos' / name), photo)
            images.append({'id': 10 + i, 'file_name': name, 'width': width, 'height': height})
            for k, category in enumerate(CATEGORIES):
                x, y, w, h = cv2.boundingRect((labels == k + 1).astype(np.uint8))
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': 10 + i,
                        'category_id': category,
                        'bbox': [x, y, w, h],
                        'area': w * h,
                        'iscrowd': 0,
                    }
                )
        content = {
            'images': images,
            'annotations': annotations,
            'categories': [{'id': key, 'name': name} for key, name in CATEGORIES.items()],
        }
        (root / f'{split}.json').write_text(json.dumps(content))


def write_segmentation(root: Path, splits: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for folder in ('images', 'labels'):
            (root / folder / split).mkdir(parents=True)
        for i in range(count):
            photo, labels = draw_photo(rng, SIZES[i % len(SIZES)])
            cv2.imwrite(str(root / 'images' / split / f'{i}.jpg'), photo)
            cv2.imwrite(str(root / 'labels' / split / f'{i}.png'), labels)


def detection_config(folder: Path, root: Path) -> Path:
    """What README tells the user to write, at most ten lines."""
    text = f"""\
_base_ = '{CONFIGS}/bccd/faster_rcnn_se_r50_bccd.py'
own_data = dict(
    data_root='{root}',
    train=dict(ann_file='train.json', img='photos'),
    val=dict(ann_file='val.json', img='photos'),
    scale=(96, 96),
)
"""
    assert len(text.splitlines()) <= 10
    (folder / 'mine.py').write_text(text)
    return folder / 'mine.py'


def segmentation_config(folder: Path, root: Path) -> Path:
    text = f"""\
_base_ = '{CONFIGS}/camvid/fcn_se_r50_camvid.py'
own_data = dict(
    data_root='{root}',
    train=dict(img='images/train', seg_map='labels/train'),
    val=dict(img='images/val', seg_map='labels/val'),
)
"""
    assert len(text.splitlines()) <= 10
    (folder / 'mine.py').write_text(text)
    return folder / 'mine.py'
