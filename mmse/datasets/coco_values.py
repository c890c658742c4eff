"""The values of COCO annotation files: what pycocotools and mmdet need each one to be."""

import codecs
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmse.datasets.findings import refuse
from mmse.utils.errors import UserError
from mmse.utils.text import counted

Entry = dict[str, Any]
Content = dict[str, list[Entry]]


class _Key(NamedTuple):
    """One key of an entry: whether a value fits, what it must be, and what to write."""

    fits: Callable[[Any], bool]
    must: str
    remedy: str = ''
    optional: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_size(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | int) and value in (0, 1)


_ID = _Key(_is_id, 'a whole number or a text')
_FLAG = _Key(_is_flag, '0 or 1', 'write 0 for an ordinary object', optional=True)
_KEYS: dict[str, dict[str, _Key]] = {
    'images': {
        'id': _ID,
        'file_name': _Key(_is_name, 'the name of a file'),
        'width': _Key(_is_size, 'a number above 0', "write the file's width in pixels"),
        'height': _Key(_is_size, 'a number above 0', "write the file's height in pixels"),
    },
    'annotations': {
        'id': _ID,
        'image_id': _ID,
        'category_id': _ID,
        'bbox': _Key(_is_box, 'four numbers', 'write [x, y, width, height] in pixels'),
        'area': _Key(_is_number, 'a number', "write width times height of 'bbox'"),
        'iscrowd': _FLAG,
        'ignore': _FLAG,
    },
    'categories': {
        'id': _ID,
        'name': _Key(_is_name, 'a text', 'put the name in quotes'),
    },
}


def parse(file: Path) -> Content:
    """Parse a COCO annotation file and check the type of every value that is used.

    Returns:
        Its lists ``images``, ``categories`` and, if it has one, ``annotations``.

    Raises:
        UserError: The file cannot be read, is not JSON in UTF-8, or not in COCO's format.
    """
    if file.is_dir():
        raise UserError(
            f'the annotation file {file} is a folder: give one COCO file, which labelme2coco makes '
            "of LabelMe's files"
        )
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f'the annotation file {file} cannot be read: {error}') from error
    marks = {codecs.BOM_UTF8: 'begins with a byte order mark'}
    marks |= dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), 'is in UTF-16')
    for mark, words in marks.items():
        if raw.startswith(mark):
            raise UserError(
                f'the annotation file {file} {words}, which pycocotools does not read: save it as '
                'UTF-8 without byte order mark'
            )
    try:
        content = json.loads(raw.decode('utf-8'))
    except UnicodeDecodeError as error:
        raise UserError(
            f'the annotation file {file} is not in UTF-8: save it as UTF-8 ({error})'
        ) from error
    except ValueError as error:
        if raw.lstrip().startswith(b'<') or file.suffix == '.txt':
            raise UserError(
                f'the annotation file {file} is not JSON but {"XML" if raw[:1] == b"<" else "text"}'
                ': export the data as COCO, or, if this is Pascal VOC, convert the data by: python '
                'tools/prepare_data.py voc --src FOLDER --dst data/voc'
            ) from error
        raise UserError(f'the annotation file {file} is not JSON: {error}') from error
    for part, keys in _KEYS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if part == 'annotations' and part not in content:
            continue
        if not isinstance(entries, list):
            raise UserError(
                f'{file} is not in COCO format: it has no list {part!r}; export the data as COCO, '
                "or make one file of LabelMe's by labelme2coco"
            )
        if strange := [entry for entry in entries if not isinstance(entry, dict)]:
            raise UserError(f'{file} is not in COCO format: {part!r} holds {strange[0]!r}')
        refuse(str(file), _wrong_values(part, entries, keys))
    return {part: content[part] for part in _KEYS if part in content}


def _wrong_values(part: str, entries: Sequence[Entry], keys: Mapping[str, _Key]) -> list[str]:
    problems = []
    for key, rule in keys.items():
        remedy = f': {rule.remedy}' if rule.remedy else ''
        lacking = [f'{part}[{i}]' for i, e in enumerate(entries) if key not in e]
        if not rule.optional:
            problems += [s + remedy for s in counted(f'{part} have no {key}', lacking)]
        wrong = [
            f'{part}[{i}].{key} is {json.dumps(entry[key])}'
            for i, entry in enumerate(entries)
            if key in entry and not rule.fits(entry[key])
        ]
        what = f'{part} have {key} that is not {rule.must}'
        problems += [sentence + remedy for sentence in counted(what, wrong)]
    return problems
