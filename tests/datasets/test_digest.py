"""What changes the identity of data, and what does not."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmse.datasets.digest import data_digest
from mmse.datasets.shapes import ensure_shapes
from mmse.utils.errors import UserError

NAMES = ('one', 'two')


def write_images(folder: Path, fill: int) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(NAMES):
        pixels = np.random.default_rng(fill + i).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{name}.jpg'), pixels)


def coco_file(root: Path, split: str) -> Path:
    images = [
        {'id': i, 'file_name': f'{n}.jpg', 'width': 48, 'height': 32} for i, n in enumerate(NAMES)
    ]
    boxes = [
        {'id': i + 1, 'image_id': i, 'category_id': 1, 'bbox': [4, 4, 9, 9], 'area': 81}
        for i in range(len(NAMES))
    ]
    content = {
        'images': images,
        'annotations': [{**box, 'iscrowd': 0} for box in boxes],
        'categories': [{'id': 1, 'name': 'cell'}],
    }
    file = root / f'{split}.json'
    file.write_text(json.dumps(content))
    return file


def coco(root: Path) -> Config:
    """A detector's data as COCO has them, in a concatenation within a wrapper for training."""
    loaders: dict[str, Any] = {}
    for split in ('train', 'val'):
        write_images(root / split, len(split))
        coco_file(root, split)
        loaders[split] = {
            'type': 'CocoDataset',
            'data_root': str(root),
            'ann_file': f'{split}.json',
            'data_prefix': {'img': split},
            'metainfo': {'classes': ('cell',)},
            'pipeline': [{'type': 'LoadImageFromFile'}],
        }
    train = {'type': 'ConcatDataset', 'datasets': [loaders['train']]}
    return as_config(
        'mmdet',
        {'type': 'RepeatDataset', 'times': 2, 'dataset': train},
        loaders['val'],
        {'type': 'CocoMetric', 'ann_file': str(root / 'val.json')},
    )


def as_config(scope: str, train: Any, val: Any, evaluator: Any) -> Config:
    return Config(
        {
            'default_scope': scope,
            'train_dataloader': {'dataset': train},
            'val_dataloader': {'dataset': val},
            'val_evaluator': evaluator,
        }
    )


def seg(root: Path) -> Config:
    """A segmenter's data: folders of images and of label maps."""
    for split in ('train', 'val'):
        write_images(root / split, len(split))
        (root / 'labels' / split).mkdir(parents=True)
        for i, name in enumerate(NAMES):
            labels = np.full((32, 48), i, np.uint8)
            cv2.imwrite(str(root / 'labels' / split / f'{name}.png'), labels)
    train, val = (
        {
            'type': 'BaseSegDataset',
            'data_root': str(root),
            'data_prefix': {'img_path': split, 'seg_map_path': f'labels/{split}'},
            'metainfo': {'classes': ('ground', 'cell')},
            'pipeline': [],
        }
        for split in ('train', 'val')
    )
    return as_config('mmseg', train, val, {'type': 'IoUMetric'})


def voc(root: Path) -> Config:
    """A detector's data as Pascal VOC has them: one XML file per image."""
    write_images(root / 'JPEGImages', 0)
    (root / 'Annotations').mkdir()
    for name in NAMES:
        (root / 'Annotations' / f'{name}.xml').write_text(
            '<annotation><size><width>48</width><height>32</height></size><object><name>cell</name>'
            '<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>'
            '</annotation>'
        )
    for split, name in zip(('train', 'val'), NAMES, strict=True):
        (root / f'{split}.txt').write_text(name + '\n')
    train, val = (
        {
            'type': 'XMLDataset',
            'data_root': str(root),
            'ann_file': f'{split}.txt',
            'data_prefix': {'sub_data_root': ''},
            'metainfo': {'classes': ('cell',)},
            'pipeline': [],
        }
        for split in ('train', 'val')
    )
    return as_config('mmdet', train, val, {'type': 'VOCMetric'})


def moved(cfg: Config, old: Path, new: Path) -> Config:
    return Config(json.loads(json.dumps(cfg.to_dict()).replace(str(old), str(new))))


def digest_after(cfg: Config, file: Path, content: bytes) -> str:
    """The digest with one file changed, which is put back."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        return data_digest(cfg)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize('make', [coco, seg, voc])
def test_the_place_does_not_count(make, tmp_path, monkeypatch):
    cfg = make(tmp_path / 'here')
    digest = data_digest(cfg)
    assert len(digest) == 64
    shutil.copytree(tmp_path / 'here', tmp_path / 'deeper/there')
    assert data_digest(moved(cfg, tmp_path / 'here', tmp_path / 'deeper/there')) == digest
    monkeypatch.chdir(tmp_path)
    assert data_digest(moved(cfg, tmp_path / 'here', Path('here'))) == digest
    # What a run leaves beside the data is none of them.
    (tmp_path / 'here/notes.txt').write_text('checked')
    assert data_digest(cfg) == digest


@pytest.mark.parametrize(
    ('make', 'labels'),
    [
        (coco, ['train.json', 'val.json']),
        (seg, ['labels/train/one.png', 'labels/val/two.png']),
        (voc, ['Annotations/one.xml', 'Annotations/two.xml']),
    ],
)
def test_labels_corrected_in_place_are_other_data(make, labels, tmp_path):
    """Of both splits, in files of the same names and sizes."""
    cfg = make(tmp_path / 'data')
    digests = {data_digest(cfg)}
    for name in labels:
        file = tmp_path / 'data' / name
        content = bytearray(file.read_bytes())
        place = content.rfind(b'4') if file.suffix != '.png' else -20
        content[place] ^= 1  # '4' becomes '5'
        digests.add(digest_after(cfg, file, bytes(content)))
    assert len(digests) == 3


@pytest.mark.parametrize(
    ('make', 'images'),
    [
        (coco, ['train/one.jpg', 'val/two.jpg']),
        (seg, ['train/two.jpg', 'val/one.jpg']),
        (voc, ['JPEGImages/one.jpg', 'JPEGImages/two.jpg']),
    ],
)
def test_a_replaced_image_is_other_data(make, images, tmp_path):
    cfg = make(tmp_path / 'data')
    digests = {data_digest(cfg)}
    for name in images:
        file = tmp_path / 'data' / name
        digests.add(digest_after(cfg, file, file.read_bytes() + b'\0'))
    assert len(digests) == 3


def test_an_image_more_is_other_data(tmp_path):
    cfg = seg(tmp_path / 'data')
    digest = data_digest(cfg)
    for folder, ending in (('train', 'jpg'), ('labels/train', 'png')):
        here = tmp_path / 'data' / folder
        shutil.copy(here / f'one.{ending}', here / f'three.{ending}')
    assert data_digest(cfg) != digest


def test_annotations_of_the_evaluator_count(tmp_path):
    cfg = coco(tmp_path / 'data')
    other = shutil.copy(tmp_path / 'data/val.json', tmp_path / 'corrected.json')
    cfg.val_evaluator.ann_file = str(other)
    digest = data_digest(cfg)
    text = Path(other).read_text()
    Path(other).write_text(text.replace('81', '80'))
    assert data_digest(cfg) != digest
    Path(other).unlink()
    with pytest.raises(UserError, match=r'val_evaluator\.ann_file: there is no file'):
        data_digest(cfg)


def test_labels_that_are_in_no_file_of_their_own_count(tmp_path):
    """Such as those of a class that knows them by heart."""
    from mmengine.dataset import BaseDataset
    from mmengine.registry import DATASETS

    class Listed(BaseDataset):
        answer = 1

        def load_data_list(self):
            return [{'img_path': f'{self.data_root}/one.jpg', 'gt_label': self.answer}]

    DATASETS.register_module(module=Listed, name='ListedForDigest', force=True)
    write_images(tmp_path / 'data', 0)
    dataset = {'type': 'ListedForDigest', 'data_root': str(tmp_path / 'data')}
    cfg = as_config('mmengine', dataset, dataset, [])
    digest = data_digest(cfg)
    Listed.answer = 2
    assert data_digest(cfg) != digest


def test_of_a_class_that_is_no_base_dataset_every_file_counts(tmp_path):
    from mmengine.registry import DATASETS

    class Pairs:
        def __init__(self, data_root: str) -> None:
            raise AssertionError('is not built')

    DATASETS.register_module(module=Pairs, name='PairsForDigest', force=True)
    write_images(tmp_path / 'data', 0)
    dataset = {'type': 'PairsForDigest', 'data_root': str(tmp_path / 'data')}
    cfg = as_config('mmengine', dataset, dataset, [])
    digest = data_digest(cfg)
    (tmp_path / 'data/more.jpg').write_bytes(b'1')
    assert data_digest(cfg) != digest


def built_in(root: Path, kind: str = 'Det', **shapes: int) -> Config:
    dataset = {'type': f'mmse.Shapes{kind}Dataset', 'data_root': str(root), 'shapes': shapes}
    evaluator = {'type': 'CocoMetric', 'ann_file': f'{root}/annotations/instances_val.json'}
    return as_config('mmdet', dataset, dataset, evaluator)


def test_built_in_data_are_known_by_their_settings(tmp_path):
    small = {'size': 32, 'num_train': 1, 'num_val': 1}
    cfg = built_in(tmp_path / 'shapes', **small)
    digest = data_digest(cfg)
    assert not list(tmp_path.iterdir())
    ensure_shapes(tmp_path / 'shapes', **small)
    assert data_digest(cfg) == digest
    assert data_digest(built_in(tmp_path / 'elsewhere', **small)) == digest
    # The defaults may be written down.
    assert data_digest(built_in(tmp_path / 'elsewhere', **small, seed=0)) == digest
    assert data_digest(built_in(tmp_path / 'elsewhere', **small, seed=1)) != digest
    with pytest.raises(UserError, match='holds other data'):
        data_digest(built_in(tmp_path / 'shapes', **small, seed=1))
    with pytest.raises(UserError, match=r'train_dataloader\.dataset\.shapes: .*sides'):
        data_digest(built_in(tmp_path / 'shapes', sides=32))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data_root': 'nowhere'}, 'val_dataloader: there is no data folder nowhere'),
        ({'ann_file': 'vall.json'}, 'val_dataloader: the data set cannot be read: .*vall.json'),
        ({'type': 'Nothing'}, 'val_dataloader: there is no dataset of type Nothing'),
    ],
)
def test_data_that_cannot_be_read_are_named(changes, message, tmp_path):
    cfg = coco(tmp_path / 'data')
    cfg.val_dataloader.dataset.update(changes)
    with pytest.raises(UserError, match=message):
        data_digest(cfg)
