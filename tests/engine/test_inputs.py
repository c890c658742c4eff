"""Files that a command line names: inputs to predict, and the names of what comes from them."""

import os
from pathlib import Path

import pytest

from mmse.engine.config.own_files import image_suffixes, suffix_pairs
from mmse.engine.inputs import find_sources
from mmse.utils.errors import UserError
from mmse.utils.names import names_below


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_names_below_the_shared_folder() -> None:
    assert names_below([], '.png') == {}
    assert names_below(['/a/b/x.jpg'], '.png') == {'/a/b/x.jpg': Path('x.png')}
    names = names_below(['/a/1/x.jpg', '/a/2/x.jpg', '/a/2/x.tif'], '.png')
    assert list(map(str, names.values())) == ['1/x.png', '2/x.jpg.png', '2/x.tif.png']


def test_files_folders_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(
        tmp_path, 'in/a/1.jpg', 'in/a/2.JPEG', 'in/b/1.png', 'in/b/.1.png', 'in/notes.txt', '3.bmp'
    )
    monkeypatch.chdir(tmp_path)
    sources = find_sources(['in', '3.bmp', 'in/a/1.jpg'])
    assert [source.name for source in sources] == ['a/1.jpg', 'a/2.JPEG', 'b/1.png', '3.bmp']
    assert [str(source.out) for source in sources] == ['a/1', 'a/2', 'b/1', '3']
    assert [source.name for source in find_sources(['in/**/1.*'])] == ['a/1.jpg', 'b/1.png']
    # Where names differ in their ending only, what comes from them keeps it.
    two = find_sources(['in/a/1.jpg', 'in/b'])
    assert [(source.name, str(source.out)) for source in two] == [('1.jpg',) * 2, ('1.png',) * 2]
    # Files of two folders that have the same name keep the folders.
    touch(tmp_path, 'in/b/1.jpg')
    names = [source.name for source in find_sources(['in/a/', 'in/b/'])]
    assert names == ['a/1.jpg', 'a/2.JPEG', 'b/1.jpg', 'b/1.png']
    (tmp_path / 'clip.mp4').write_text('no video')
    with pytest.raises(UserError, match=r'clip\.mp4 cannot be read as a video'):
        find_sources(['clip.mp4'])
    os.mkdir('empty')
    with pytest.raises(UserError, match='empty: no such file, or a folder without images'):
        find_sources(['in', 'empty'])


@pytest.mark.parametrize(
    ('files', 'pairs'),
    [
        (['i/a.jpg', 'i/ab.jpg', 's/a.png', 's/ab.png'], [('.jpg', '.png')]),
        (['i/a.JPG', 'i/b.jpg', 's/a.PNG', 's/b.PNG'], [('.JPG', '.PNG'), ('.jpg', '.PNG')]),
        (['i/a.jpg', 'i/._a.jpg', 's/a_mask.tif', 's/._a_mask.tif'], [('.jpg', '_mask.tif')]),
        (
            [
                *('i/x/a_leftImg8bit.png', 'i/y/b_leftImg8bit.png'),
                *('s/x/a_gtFine_labelTrainIds.png', 's/y/b_gtFine_labelTrainIds.png'),
            ],
            [('_leftImg8bit.png', '_gtFine_labelTrainIds.png')],
        ),
        # One label map is missing, which the check of the data names.
        (['i/a.jpg', 'i/b.jpg', 's/a.png'], [('.jpg', '.png')]),
    ],
)
def test_endings_of_images_and_label_maps(
    files: list[str], pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    touch(tmp_path, *files)
    assert suffix_pairs(tmp_path / 'i', tmp_path / 's', 'own_data.train') == pairs


def test_label_maps_without_an_image_are_named(tmp_path: Path, logged_warnings: list[str]) -> None:
    """Those that belong to an image in some other way, such as its colours, do not count."""
    touch(tmp_path, 'i/a.jpg', 's/a.png', 's/a_color.png', 's/b.png', 's/b_color.png')
    assert suffix_pairs(tmp_path / 'i', tmp_path / 's', 'own_data.train') == [('.jpg', '.png')]
    (said,) = logged_warnings
    assert said.startswith('own_data.train: 2 label maps in ')
    assert said.endswith('have no image (b.png, b_color.png)')


def test_images_and_label_maps_in_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, 'a.jpg', 'a.png', 'b.jpg', 'b.png')
    assert suffix_pairs(tmp_path, tmp_path, 'own_data.train') == [('.jpg', '.png')]
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r'are in one folder, .* and all end in \.png: put them'):
        suffix_pairs(tmp_path, tmp_path, 'own_data.train')


def test_label_maps_that_cannot_be_told(tmp_path: Path) -> None:
    touch(tmp_path, 'i/a.jpg', 's/a_ids.png', 's/a_color.png', 'other/z.png', 'none/readme.md')
    with pytest.raises(UserError, match=r'the endings _color\.png, _ids\.png: set train_dataload'):
        suffix_pairs(tmp_path / 'i', tmp_path / 's', 'own_data.train')
    with pytest.raises(UserError, match=r'no label map in .*other begins like a\.jpg'):
        suffix_pairs(tmp_path / 'i', tmp_path / 'other', 'own_data.train')
    with pytest.raises(UserError, match=r'none has no label maps'):
        suffix_pairs(tmp_path / 'i', tmp_path / 'none', 'own_data.train')
    with pytest.raises(UserError, match=r'none has no images'):
        suffix_pairs(tmp_path / 'none', tmp_path / 's', 'own_data.train')
    with pytest.raises(UserError, match=r'there is no folder .*gone'):
        image_suffixes(tmp_path / 'gone', 'own_data.test')
    assert image_suffixes(tmp_path, 'own_data.test') == ['.jpg', '.png']
