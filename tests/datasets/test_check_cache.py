"""Checks that went well are kept for the next start, and those of other data are not taken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.data_checks import check, detection, edit, write_coco

from mmse.datasets import cache
from mmse.utils.errors import UserError

pytest.importorskip('mmdet')
KEPT = ' (from an earlier check)'


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'kept'
    monkeypatch.setattr(cache, 'folder', lambda: folder)
    return folder


def test_a_second_check_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path, edit('annotations', 1, area=0))
    first = check(detection(tmp_path))
    monkeypatch.setattr('mmse.datasets.check.samples', None)
    second = check(detection(tmp_path))
    assert second.summary == first.summary + KEPT
    assert second.warnings == first.warnings and len(first.warnings) == 1


def test_other_data_and_other_settings_are_checked_anew(tmp_path: Path, kept: Path) -> None:
    write_coco(tmp_path)
    check(detection(tmp_path))
    assert check(detection(tmp_path)).summary.endswith(KEPT)
    assert len(list(kept.iterdir())) == 1
    for settings in (
        {'filter_cfg': {'min_size': 1}},
        {'indices': 2},
        {'data_root': f'{tmp_path}/'},
    ):
        assert not check(detection(tmp_path, **settings)).summary.endswith(KEPT)
    assert not check(detection(tmp_path), batch_size=2).summary.endswith(KEPT)
    assert not check(detection(tmp_path, test_mode=True), 'val').summary.endswith(KEPT)
    write_coco(tmp_path, edit('annotations', 1, area=99))
    assert not check(detection(tmp_path)).summary.endswith(KEPT)
    Image.fromarray(np.eye(60, dtype=np.uint8)[:40]).save(tmp_path / 'img' / '1.png')
    assert not check(detection(tmp_path)).summary.endswith(KEPT)


def test_faults_are_not_kept(tmp_path: Path, kept: Path) -> None:
    write_coco(tmp_path, edit('annotations', 1, area=None))
    for _ in range(2):
        with pytest.raises(UserError, match='annotations have area that is not a number'):
            check(detection(tmp_path))
    assert not kept.exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, kept: Path) -> None:
    write_coco(tmp_path)
    kept.write_text('a file')
    for _ in range(2):
        assert not check(detection(tmp_path)).summary.endswith(KEPT)


@pytest.mark.parametrize('text', ['', '{', '[{}]', '[1]', '{"a": 1}'])
def test_a_damaged_report_is_made_anew(tmp_path: Path, kept: Path, text: str) -> None:
    write_coco(tmp_path)
    first = check(detection(tmp_path))
    (file,) = kept.iterdir()
    file.write_text(text)
    assert check(detection(tmp_path)) == first
    assert check(detection(tmp_path)).summary.endswith(KEPT)


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
    assert cache.folder() == Path('/somewhere/mmse/data_checks')
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', '/home/me')
    assert cache.folder() == Path('/home/me/.cache/mmse/data_checks')
