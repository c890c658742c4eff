"""Labelled pictures in the layouts that labelling tools export."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from support.engine import CONFIGS

from mmse.datasets.scenes import CLASSES, draw_scene
from mmse.engine.config import load_config

# In no order of their own, so that an order that a tool changes is seen.
NAMES = tuple(reversed(CLASSES[:4]))
COLOURS = ((0, 0, 0), (250, 50, 83), (51, 221, 255), (52, 209, 183), (255, 96, 55), (221, 255, 51))
FROM_0 = {'first': 0, 'category': 0}
VOC_MAPS = {'img': 'JPEGImages', 'seg_map': 'SegmentationClass'}


class Labelled(NamedTuple):
    """A picture with its objects, (class number from 0, bool mask (H, W)), which do not overlap."""

    name: str
    image: np.ndarray
    objects: list[tuple[int, np.ndarray]]

    def boxes(self) -> list[tuple[int, tuple[int, int, int, int]]]:
        """(class, (x, y, width, height)) of every object."""
        return [(k, cv2.boundingRect(mask.astype(np.uint8))) for k, mask in self.objects]

    def label_map(self) -> np.ndarray:
        """(H, W): 0 is background, 1 + k is class k."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for k, mask in self.objects:
            labels[mask] = 1 + k
        return labels


Splits = dict[str, list[Labelled]]


def scenes() -> Splits:
    """Scenes of the built-in data with the first four of its classes."""
    pictures = []
    for seed in range(12):
        scene = draw_scene(np.random.default_rng(seed), 64)
        objects = [
            (NAMES.index(CLASSES[label]), mask)
            for label, mask in zip(scene.labels, scene.masks, strict=True)
            if label < 4 and mask.sum() > 30
        ]
        pictures.append(Labelled(f'scene_{seed:02}', scene.image, objects))
    assert {k for picture in pictures[:8] for k, _ in picture.objects} == {0, 1, 2, 3}
    return {'train': pictures[:8], 'val': pictures[8:]}


def configure(folder: Path, base: str, own: dict[str, Any]) -> Config:
    """The config that a user writes, at most ten lines, loaded."""
    parts = [f'    {split}={keys!r},' for split, keys in own.items()]
    lines = [f"_base_ = '{CONFIGS}/{base}'", 'own_data = dict(', f"    data_root='{folder}',"]
    file = folder / 'mine.py'
    file.write_text('\n'.join([*lines, *parts, ')']) + '\n')
    cfg = load_config(str(file))
    init_default_scope(cfg.default_scope)
    return cfg


def save(folder: Path, name: str, picture: np.ndarray) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), picture)


def save_palette(folder: Path, name: str, labels: np.ndarray) -> None:
    """A PNG of palette indices, as VOC has them."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([v for k in range(256) for v in COLOURS[k % len(COLOURS)]])
    image.save(folder / name)


def write_list(file: Path, lines: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(lines) + '\n')


def coco(
    pictures: list[Labelled],
    classes: Sequence[str],
    *,
    first: int = 1,
    category: int = 1,
    before: Sequence[str] = (),
    group: str | None = '',
    file_name: str = '{}.jpg',
    polygons: bool = False,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A COCO file; ids begin at ``first``, those of categories at ``category``, where the
    categories ``before`` stand in front of the classes."""
    images, annotations = [], []
    for picture in pictures:
        height, width = picture.image.shape[:2]
        name = file_name.format(picture.name)
        number = len(images) + first
        images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for (k, mask), (_, box) in zip(picture.objects, picture.boxes(), strict=True):
            outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, 2)
            outlines = [o.ravel().tolist() for o in outlines if len(o) > 2] if polygons else []
            annotations.append(
                {
                    'id': len(annotations) + first,
                    'image_id': number,
                    'category_id': k + category + len(before),
                    'segmentation': outlines,
                    'area': float(box[2] * box[3]),
                    'bbox': [float(v) for v in box],
                    'iscrowd': 0,
                    **(more or {}),
                }
            )
    categories = [
        {'id': k + category, 'name': name, 'supercategory': 'none' if name in before else group}
        for k, name in enumerate([*before, *classes])
    ]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _coco_file(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def cvat_coco(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """CVAT's COCO 1.0; subsets have folders, rectangles no outline, objects attributes."""
    more = {'attributes': {'occluded': False, 'rotation': 0.0}}
    for split, pictures in splits.items():
        _coco_file(root / f'annotations/instances_{split}.json', coco(pictures, classes, more=more))
        for picture in pictures:
            save(root / 'images' / split, f'{picture.name}.jpg', picture.image)
    return {
        s: {'ann_file': f'annotations/instances_{s}.json', 'img': f'images/{s}'} for s in splits
    }


def labelme_coco(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """LabelMe's labelme2coco.py, once for each split: ids from 0, the background a category."""
    for split, pictures in splits.items():
        content = coco(
            pictures,
            classes,
            **FROM_0,
            before=('_background_',),
            group=None,
            file_name='JPEGImages/{}.jpg',
            polygons=True,
        )
        content['categories'][0]['supercategory'] = None
        _coco_file(root / split / 'annotations.json', content)
        for picture in pictures:
            save(root / split / 'JPEGImages', f'{picture.name}.jpg', picture.image)
    return {s: {'ann_file': f'{s}/annotations.json', 'img': f'{s}/JPEGImages'} for s in splits}


def label_studio_coco(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """Label Studio's COCO: result.json beside images/, ids from 0, hashes before the names."""
    form = {'file_name': 'images/1a2b3c4d-{}.jpg', 'more': {'ignore': 0}}
    for split, pictures in splits.items():
        content = coco(pictures, classes, **FROM_0, **form)
        for entry in content['categories']:
            del entry['supercategory']
        _coco_file(root / split / 'result.json', content)
        for picture in pictures:
            save(root / split / 'images', f'1a2b3c4d-{picture.name}.jpg', picture.image)
    return {s: {'ann_file': f'{s}/result.json', 'img': f'{s}/images'} for s in splits}


def roboflow_coco(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """Roboflow's COCO: _annotations.coco.json beside the pictures, the project a category."""
    for split, pictures in splits.items():
        content = coco(
            pictures,
            classes,
            **FROM_0,
            before=('cells',),
            group='cells',
            file_name='{}_jpg.rf.0f1e2d3c.jpg',
        )
        _coco_file(root / split / '_annotations.coco.json', content)
        for picture in pictures:
            save(root / split, f'{picture.name}_jpg.rf.0f1e2d3c.jpg', picture.image)
    return {s: {'ann_file': f'{s}/_annotations.coco.json', 'img': s} for s in splits}


def voc(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """Pascal VOC with lists of names for both tasks, as CVAT, LabelMe and VOC itself have it."""
    for split, pictures in splits.items():
        for task in ('Main', 'Segmentation'):
            write_list(root / f'ImageSets/{task}/{split}.txt', [p.name for p in pictures])
        for picture in pictures:
            save(root / 'JPEGImages', f'{picture.name}.jpg', picture.image)
            save_palette(root / 'SegmentationClass', f'{picture.name}.png', picture.label_map())
            (root / 'Annotations').mkdir(exist_ok=True)
            _voc_xml(picture, classes).write(root / f'Annotations/{picture.name}.xml')
    for k in range(20):  # most of VOC's pictures have no label map
        save(root / 'JPEGImages', f'boxes_only_{k}.jpg', pictures[0].image)
    return {
        split: VOC_MAPS | {'ann_file': f'ImageSets/Segmentation/{split}.txt'} for split in splits
    }


def _voc_xml(picture: Labelled, classes: Sequence[str]) -> ElementTree.ElementTree:
    root = ElementTree.Element('annotation')
    ElementTree.SubElement(root, 'filename').text = f'{picture.name}.jpg'
    height, width = picture.image.shape[:2]
    size = ElementTree.SubElement(root, 'size')
    for key, value in {'width': width, 'height': height, 'depth': 3}.items():
        ElementTree.SubElement(size, key).text = str(value)
    for k, (x, y, w, h) in picture.boxes():
        item = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(item, 'name').text = classes[k]
        box = ElementTree.SubElement(item, 'bndbox')
        for key, value in {'xmin': x + 1, 'ymin': y + 1, 'xmax': x + w, 'ymax': y + h}.items():
            ElementTree.SubElement(box, key).text = f'{value:.1f}'
    return ElementTree.ElementTree(root)


def cvat_masks(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """CVAT's Segmentation mask 1.1 with images: classes in the colours of labelmap.txt."""
    names = ('background', *classes)
    lines = [
        f'{n}:{r},{g},{b}::' for n, (r, g, b) in zip(names, COLOURS[: len(names)], strict=True)
    ]
    write_list(root / 'labelmap.txt', ['# label:color_rgb:parts:actions', *lines])
    for split, pictures in splits.items():
        write_list(root / f'ImageSets/Segmentation/{split}.txt', [p.name for p in pictures])
        for picture in pictures:
            save(root / 'JPEGImages', f'{picture.name}.jpg', picture.image)
            rgb = np.array(COLOURS, np.uint8)[picture.label_map()]
            save(root / 'SegmentationClass', f'{picture.name}.png', rgb[..., ::-1])
    return {
        split: VOC_MAPS | {'ann_file': f'ImageSets/Segmentation/{split}.txt'} for split in splits
    }


def labelme_voc(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """LabelMe's labelme2voc.py, once for each split, with labels.txt beside."""
    write_list(root / 'labels.txt', ['__ignore__', '_background_', *classes])
    for split, pictures in splits.items():
        write_list(root / split / 'class_names.txt', ['_background_', *classes])
        for picture in pictures:
            save(root / split / 'JPEGImages', f'{picture.name}.jpg', picture.image)
            folder = root / split / 'SegmentationClassPNG'
            save_palette(folder, f'{picture.name}.png', picture.label_map())
            (root / split / 'SegmentationClass').mkdir(exist_ok=True)
            np.save(root / split / f'SegmentationClass/{picture.name}.npy', picture.label_map())
    return {s: {'img': f'{s}/JPEGImages', 'seg_map': f'{s}/SegmentationClassPNG'} for s in splits}


def roboflow_masks(root: Path, splits: Splits, classes: Sequence[str]) -> dict[str, Any]:
    """Roboflow's semantic segmentation masks: label maps beside the pictures, _classes.csv."""
    for split, pictures in splits.items():
        names = ['Pixel Value, Class', '0, unlabeled']
        names += [f'{k + 1}, {name}' for k, name in enumerate(classes)]
        write_list(root / split / '_classes.csv', names)
        for picture in pictures:
            stem = f'{picture.name}_jpg.rf.0f1e2d3c'
            save(root / split, f'{stem}.jpg', picture.image)
            save(root / split, f'{stem}_mask.png', picture.label_map())
    return {split: {'img': split, 'seg_map': split} for split in splits}


COCO = (cvat_coco, labelme_coco, label_studio_coco, roboflow_coco)
MASKS = {
    voc: None,
    cvat_masks: 'background',
    labelme_voc: '_background_',
    roboflow_masks: 'unlabeled',
}
