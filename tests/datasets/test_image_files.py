"""Images of every kind: what the check says is what the config's pipeline yields."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from support.data_checks import (
    DET_PIPELINE,
    ORIENTATION,
    SEG_PIPELINE,
    check,
    detection,
    each,
    edit,
    segmentation,
    write_coco,
    write_pairs,
)
from support.versions import needs_torch

from mmse.datasets import images
from mmse.datasets.headers import read_header
from mmse.datasets.images import samples
from mmse.datasets.orientation import grey, is_turned, read_stored, turn
from mmse.datasets.reading import read_dataset
from mmse.utils.errors import UserError

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')


def scene(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with one bright box in a corner, and its label map."""
    labels = np.zeros((height, width), np.uint8)
    labels[4:16, 5:25] = 1
    image = np.random.default_rng(0).integers(0, 40, (height, width, 3), np.uint8)
    image[labels == 1] = 220
    return image, labels


def save(path: Path, shown: np.ndarray, orientation: int) -> None:
    """Save an image so that it is shown like this with an EXIF orientation."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = np.stack([turn(shown[..., c], back) for c in range(3)], -1)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored).save(path, exif=exif, **({} if path.suffix == '.png' else QUALITY))


QUALITY: dict[str, Any] = {'quality': 95}
MODES = ['color', 'color_ignore_orientation', 'grayscale', 'unchanged']


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(
    ('suffix', 'orientation'), [*(('.jpg', k) for k in range(1, 9)), ('.png', 6), ('.tif', 6)]
)
def test_sizes_are_those_of_the_loader(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    orientation: int,
    mode: str,
    backend: str,
    suffix: str,
) -> None:
    """Also of images whose header alone is read."""
    shown, labels = scene()
    write_pairs(tmp_path, [labels] * 3, [shown] * 3)
    for k in range(3):
        save(tmp_path / 'img' / f'{k}{suffix}', shown, orientation)
    loader = {**SEG_PIPELINE[0], 'color_type': mode, 'imdecode_backend': backend}
    steps = [loader, *SEG_PIPELINE[1:]]
    init_default_scope('mmseg')
    dataset = segmentation(tmp_path, 2, img_suffix=suffix, pipeline=steps)
    monkeypatch.setattr(images, 'MAX_DECODED', 1)
    reading = read_dataset(dataset, 'train_dataloader.dataset')
    sizes = {sample.size for sample in samples(reading, True, 'train')}
    loaded = DATASETS.build({**dataset, 'pipeline': [loader]})[0]['img']
    assert sizes == {loaded.shape[1::-1]}
    if suffix == '.jpg':  # a turn is told by the pixels, also where no size changes
        stored = read_stored(str(tmp_path / 'img' / '0.jpg'))
        assert stored is not None
        turned = mode in ('color', 'grayscale')
        assert orientation == 1 or is_turned(grey(loaded), stored, orientation) == turned


@pytest.mark.parametrize('orientation', [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize('square', [False, True])
@pytest.mark.parametrize('kind', ['labels', 'boxes'])
def test_annotations_on_turned_images(
    tmp_path: Path, orientation: int, square: bool, kind: str
) -> None:
    """Those of the image as shown are right; those of the stored image are refused."""
    shown, labels = scene(*((48, 48) if square else (40, 60)))
    stored = turn(labels, {6: 8, 8: 6}.get(orientation, orientation))
    for name, annotated in (('shown', labels), ('stored', stored)):
        root = tmp_path / name
        if kind == 'labels':
            write_pairs(root, [annotated] * 4, [shown] * 4)
            for k in range(4):
                save(root / 'img' / f'{k}.jpg', shown, orientation)
            dataset = segmentation(root, 2, img_suffix='.jpg')
        else:
            x, y, w, h = cv2.boundingRect(annotated)
            sizes = {'width': annotated.shape[1], 'height': annotated.shape[0]}
            box = {'bbox': [x, y, w, h], 'area': w * h}
            names = [edit('images', k, file_name=f'{k}.jpg') for k in range(4)]
            write_coco(root, *names, each('images', **sizes), each('annotations', **box))
            for k in range(4):
                save(root / 'img' / f'{k}.jpg', shown, orientation)
            dataset = detection(root)
        place = 'train_dataloader.dataset.pipeline.0'
        if name == 'shown':
            (warning,) = check(dataset).warnings
            assert '4 images have an EXIF orientation (' in warning
            assert warning.endswith('and are turned when they are read')
            continue
        with pytest.raises(UserError) as caught:
            check(dataset)
        assert f'set {place}.color_type=color_ignore_orientation' in str(caught.value)
        assert '4 images have an EXIF orientation' in str(caught.value)
        loader = {**SEG_PIPELINE[0], 'color_type': 'color_ignore_orientation'}
        assert check({**dataset, 'pipeline': [loader, *dataset['pipeline'][1:]]}).warnings == []


@pytest.mark.parametrize(
    ('box', 'advice'),
    [
        (
            [30, 5, 25, 20],
            'the boxes fit the image as it is read, so swap width and height of these images',
        ),
        ([5, 40, 20, 15], 'the boxes fit that one, so set train_dataloader.dataset.pipeline.0.col'),
        ([5, 5, 20, 20], 'if the boxes fit the image as it is read, swap width and height of'),
    ],
)
def test_sizes_of_stored_images(tmp_path: Path, box: list[int], advice: str) -> None:
    """Boxes that fit into the image in one orientation only tell which one they were drawn in."""
    shown, _ = scene()
    stored = {'width': 40, 'height': 60}
    objects = {'bbox': box, 'area': box[2] * box[3]}
    write_coco(
        tmp_path, each('images', file_name='a.jpg', **stored), each('annotations', **objects)
    )
    save(tmp_path / 'img' / 'a.jpg', shown, 6)
    with pytest.raises(UserError) as caught:
        check(detection(tmp_path))
    assert (
        'turned when they are read, but the annotations give the size of the image as it is '
        in (str(caught.value))
    )
    assert advice in str(caught.value)


def test_what_cannot_be_told_is_a_warning(tmp_path: Path) -> None:
    shown, labels = scene()
    noise = np.random.default_rng(0).integers(0, 256, shown.shape, np.uint8)
    write_pairs(tmp_path, [labels], [shown])
    save(tmp_path / 'img' / '0.jpg', noise, 3)
    (warning,) = check(segmentation(tmp_path, 2, img_suffix='.jpg')).warnings
    assert 'look whether their annotations lie on the image as it is shown' in warning


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def float_tiff(path: Path) -> None:
    Image.fromarray(np.ones((40, 60), np.float32)).save(path, format='TIFF')


BROKEN: dict[str, tuple[Any, str]] = {
    'empty': (lambda path: path.write_bytes(b''), 'an empty file'),
    'a page': (lambda path: path.write_text('\n<!DOCTYPE html><html>'), 'a web page'),
    'a folder': (folder, 'a folder'),
    'cut off': (cut, 'cut off'),
    'float': (float_tiff, 'a TIFF of 32 bits, mode F, which the loader does not decode'),
    'no image': (lambda path: path.write_bytes(b'12345'), 'no image of a format'),
    'lfs': (
        lambda path: path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:0'),
        'a pointer of Git LFS: git lfs pull fetches the image',
    ),
}


@pytest.mark.parametrize('fault', BROKEN)
@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('decoded', [1, 300])
def test_images_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, suffix: str, decoded: int
) -> None:
    """They are found whether or not they are among those that are decoded."""
    monkeypatch.setattr(images, 'MAX_DECODED', decoded)
    write_coco(tmp_path, lambda c: [i.update(file_name=f'{i["id"]}{suffix}') for i in c['images']])
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for k in range(4):
        Image.fromarray(noise).save(tmp_path / 'img' / f'{k}{suffix}')
    path = tmp_path / 'img' / f'2{suffix}'
    damage, words = BROKEN[fault]
    damage(path)
    with pytest.raises(UserError, match=re.escape(f'1 images cannot be read ({path}: {words}')):
        check(detection(tmp_path))


def test_a_sample_is_decoded_and_every_header_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coco(tmp_path)
    monkeypatch.setattr(images, 'MAX_DECODED', 2)
    assert ' 4 images (2 decoded, all headers read), ' in check(detection(tmp_path)).summary


def test_few_of_very_large_images_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coco(tmp_path)
    monkeypatch.setattr(images, '_MOST_PIXELS', 2 * 40 * 60)
    monkeypatch.setattr(images, '_FEWEST', 1)
    assert ' 4 images (2 decoded, all headers read), ' in check(detection(tmp_path)).summary


def save_as(path: Path, array: np.ndarray) -> None:
    cv2.imwrite(str(path), array)


@pytest.mark.parametrize('seed', range(3))
def test_depths_and_modes(tmp_path: Path, seed: int) -> None:
    """8 and 16 bits, palette, grey, alpha: the loader's size, whatever the file holds."""
    rng = np.random.default_rng(seed)
    write_coco(tmp_path)
    deep = rng.integers(0, 65536, (40, 60, 3), np.uint16)
    kinds = [
        Image.fromarray(rng.integers(0, 256, (40, 60, 4), np.uint8)),
        Image.fromarray(rng.integers(0, 256, (40, 60), np.uint8)),
        Image.fromarray(rng.integers(0, 256, (40, 60), np.uint8)).convert('P'),
    ]
    for k, image in enumerate(kinds):
        image.save(tmp_path / 'img' / f'{k}.png')
    save_as(tmp_path / 'img' / '3.png', deep)
    assert [read_header(tmp_path / 'img' / f'{k}.png').bits for k in range(4)] == [8, 8, 8, 16]
    report = check(detection(tmp_path))
    assert ' 4 images (all decoded), ' in report.summary
    (warning,) = report.warnings
    assert f'1 images have 16 bits per channel ({tmp_path}/img/3.png), of which the loader' in (
        warning
    )
    whole = [{**DET_PIPELINE[0], 'color_type': 'unchanged'}, *DET_PIPELINE[1:]]
    sentence = (
        'images have different numbers of channels as they are loaded (1 of 1 and 2 of 3 and 1 of '
        '4): set train_dataloader.dataset.pipeline.0.color_type=color, or convert them'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(detection(tmp_path, pipeline=whole))


@needs_torch('2.3', 'has no uint16')
def test_images_of_12_bits(tmp_path: Path) -> None:
    write_coco(tmp_path)
    for k in range(4):
        values = np.random.default_rng(k).integers(0, 4096, (40, 60, 3), np.uint16)
        save_as(tmp_path / 'img' / f'{k}.png', values)
    sentence = (
        r'4 images have 16 bits per channel with values up to 409\d, of which the loader keeps '
        r'the upper 8 bits, so that 16 levels are left: convert them to 8 bits, or set '
        r'train_dataloader\.dataset\.pipeline\.0\.color_type=unchanged and mean and std'
    )
    with pytest.raises(UserError, match=sentence):
        check(detection(tmp_path))
    whole = [{**DET_PIPELINE[0], 'color_type': 'unchanged'}, *DET_PIPELINE[1:]]
    assert check(detection(tmp_path, pipeline=whole)).warnings == []


def test_five_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that Pillow does not know is read by the config's loader, and its bands counted."""
    shown, labels = scene()
    write_pairs(tmp_path, [labels] * 2, [shown] * 2)
    for k in range(2):
        np.save(tmp_path / 'img' / f'{k}.npy', np.concatenate([shown, shown[..., :2]], 2))
    loaded = 'mmcv.transforms.loading.mmcv.imfrombytes'
    original = __import__('mmcv').imfrombytes

    def read(content: bytes, **settings: Any) -> np.ndarray:
        if content[1:6] == b'NUMPY':
            return np.load(__import__('io').BytesIO(content))
        return original(content, **settings)

    monkeypatch.setattr(loaded, read)
    dataset = segmentation(tmp_path, 2, img_suffix='.npy')
    sentence = (
        'images have 5 channels as they are loaded, but model.data_preprocessor.mean has 3 values: '
        'give mean and std as many, or set train_dataloader.dataset.pipeline.0.color_type=color'
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        check(dataset)
