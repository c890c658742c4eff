"""The built-in data for classification: what is drawn, what is written, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmse.datasets.scenes import draw_scene
from mmse.datasets.shapes_cls import check_shapes_cls, draw_labelled, ensure_shapes_cls
from mmse.utils.errors import UserError

SMALL = {'size': 48, 'num_train': 6, 'num_val': 3}


@pytest.mark.parametrize('crowded', [False, True])
def test_the_label_is_that_of_the_largest_object(crowded: bool) -> None:
    labels = set()
    for seed in range(40):
        scene, label = draw_labelled(np.random.default_rng(seed), 64, crowded)
        areas = sorted(
            (int(mask.sum()), k) for mask, k in zip(scene.masks, scene.labels, strict=True)
        )
        assert areas[-1][1] == label
        if crowded:
            assert 4 <= len(areas) <= 8 and areas[-1][0] >= 2 * areas[-2][0]
        else:
            assert len(areas) == 1
        labels.add(label)
    assert labels == set(range(6))


@pytest.mark.parametrize('crowded', [False, True])
def test_files(crowded: bool, tmp_path: Path) -> None:
    ensure_shapes_cls(tmp_path / 'data', crowded=crowded, **SMALL)
    for split, number in enumerate((6, 3)):
        name = ('train', 'val')[split]
        lines = (tmp_path / 'data' / f'{name}.txt').read_text().splitlines()
        assert len(lines) == number == len(list((tmp_path / 'data' / name).iterdir()))
        for index, line in enumerate(lines):
            file, label = line.split()
            rng = np.random.default_rng([0, split, index])
            scene, expected = draw_labelled(rng, 48, crowded)
            assert (file, int(label)) == (f'{index:06d}.jpg', expected)
            image = cv2.imread(str(tmp_path / 'data' / name / file))
            jpeg = cv2.imencode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            assert np.array_equal(image, cv2.imdecode(jpeg, cv2.IMREAD_COLOR))


def test_the_same_settings_give_the_same_data_and_others_are_refused(tmp_path: Path) -> None:
    for root in ('one', 'two'):
        ensure_shapes_cls(tmp_path / root, **SMALL)
    files = [p.relative_to(tmp_path / 'one') for p in (tmp_path / 'one').rglob('*') if p.is_file()]
    assert len(files) == 6 + 3 + 2 + 1
    assert all(
        (tmp_path / 'one' / f).read_bytes() == (tmp_path / 'two' / f).read_bytes() for f in files
    )
    with pytest.raises(UserError, match='crowded False instead of True'):
        check_shapes_cls(tmp_path / 'one', crowded=True, **SMALL)
    assert check_shapes_cls(tmp_path / 'one', **SMALL)['name'] == 'shapes_cls'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': 16}, 'need size as an integer of at least 32, got 16'),
        ({'num_val': 0}, 'need num_val as an integer of at least 1, got 0'),
        ({'crowded': 1}, 'need crowded as True or False, got 1'),
        ({'classes': 3}, "have no setting 'classes'; allowed: crowded, size"),
    ],
)
def test_wrong_settings(settings: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        check_shapes_cls(tmp_path / 'data', **settings)
    assert not (tmp_path / 'data').exists()


def test_given_sides_are_areas() -> None:
    """One object without anything over it fills the square of its side, but for rounding."""
    areas = []
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), 128, [40.0])
        areas += [int(mask.sum()) for mask in scene.masks]
    assert len(areas) == 20
    assert min(areas) >= 0.45 * 1600 and max(areas) <= 1.05 * 1600
    assert np.median(areas) == pytest.approx(1600, rel=0.05)
