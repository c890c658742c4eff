"""The key ``own_data`` of a config: its forms, and sentences about those that are none."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmse.utils.errors import UserError

SPLITS = ('train', 'val', 'test')


class Part(NamedTuple):
    """One set of images with its annotations, relative to ``data_root``.

    Args:
        img: The folder of images.
        ann_file: In detection the COCO file, in segmentation a list of names, or None.
        seg_map: The folder of label maps; None in detection, or for images that are only predicted.
    """

    img: str
    ann_file: str | None
    seg_map: str | None


class OwnData(NamedTuple):
    """What ``own_data`` says.

    Args:
        root: The data folder.
        splits: The parts of train, val and test; None where there is no such data.
        scale: (width, height) in pixels that images are scaled to; None keeps the config's.
    """

    root: Path
    splits: dict[str, tuple[Part, ...] | None]
    scale: tuple[int, int] | None


def read_own_data(own: Any, segmentation: bool) -> OwnData:
    """Read ``own_data``.

    Raises:
        UserError: A key is missing or unknown, a value has another form than it may have, or the
            folder is not there.
    """
    form = 'dict(img=..., seg_map=...)' if segmentation else 'dict(ann_file=..., img=...)'
    if not isinstance(own, Mapping):
        raise UserError(
            f'own_data is {own!r}: give dict(data_root=..., train={form}, val={form} or None)'
        )
    allowed = ('data_root', 'scale', *SPLITS)
    if unknown := sorted(set(own) - set(allowed)):
        raise UserError(
            f'own_data: unknown key {", ".join(unknown)}; allowed: {", ".join(allowed)}'
        )
    if 'data_root' not in own:
        raise UserError('own_data.data_root is missing')
    if own.get('train') is None:
        raise UserError(f'own_data.train is missing: give {form}')
    if 'val' not in own:
        raise UserError(
            f'own_data.val is missing: give {form}, or None to train without validation data'
        )
    root = own['data_root']
    if not isinstance(root, str | os.PathLike):
        raise UserError(f'own_data.data_root is {root!r}: give the path of a folder')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f'own_data.data_root: there is no folder {root}; where the data are not at hand, the '
            'config that training wrote into its working folder does without them'
        )
    splits = {split: _parts(own.get(split), split, segmentation, form) for split in SPLITS}
    return OwnData(root, splits, _scale(own.get('scale')))


def _parts(value: Any, split: str, segmentation: bool, form: str) -> tuple[Part, ...] | None:
    if value is None:
        return None
    entries = list(value) if isinstance(value, list | tuple) else [value]
    parts = [part for entry in entries for part in _part(entry, split, segmentation, form)]
    if not parts or (len(parts) > 1 and split != 'train'):
        raise UserError(f'own_data.{split} has {len(parts)} sets: it takes one, {form}')
    return tuple(parts)


def _part(entry: Any, split: str, segmentation: bool, form: str) -> list[Part]:
    if not isinstance(entry, Mapping):
        several = ', or a list of them' if split == 'train' else ''
        raise UserError(f'own_data.{split} is {entry!r}: give {form}{several}')
    needed = {'img', 'seg_map'} if segmentation else {'ann_file', 'img'}
    optional = {'ann_file'} if segmentation else set()
    if split == 'test' and segmentation:
        optional |= {'seg_map'}  # images to predict
    if not needed - optional <= set(entry) <= needed | optional:
        raise UserError(
            f'own_data.{split} has the keys {", ".join(entry) or "none"}; '
            f'it needs {" and ".join(sorted(needed - optional))}'
            + (f' and may have {" and ".join(sorted(optional))}' if optional else '')
        )
    # Lists, as mmdet 2 took them: one set for each entry.
    columns = {k: list(v) if isinstance(v, list | tuple) else [v] for k, v in entry.items()}
    count = max(map(len, columns.values()))
    for key, column in columns.items():
        if len(column) not in (1, count):
            raise UserError(
                f'own_data.{split}.{key} has {len(column)} entries, another key {count}: give as '
                'many, or one for all'
            )
        if wrong := [v for v in column if not isinstance(v, str | os.PathLike)]:
            raise UserError(f'own_data.{split}.{key} is {wrong[0]!r}: give a path below data_root')
    rows = [{k: str(c[i % len(c)]) for k, c in columns.items()} for i in range(count)]
    return [Part(row['img'], row.get('ann_file'), row.get('seg_map')) for row in rows]


def _scale(scale: Any) -> tuple[int, int] | None:
    if scale is None:
        return None
    pair = tuple(scale) if isinstance(scale, list | tuple) else ()
    if len(pair) != 2 or not all(type(v) is int and v > 0 for v in pair):
        raise UserError(
            f'own_data.scale is {scale!r}: give one (width, height) in pixels, such as (96, 64); '
            'for several sizes set a RandomChoiceResize in train_dataloader.dataset.pipeline'
        )
    return pair[0], pair[1]
