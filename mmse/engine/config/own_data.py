"""A user's own data: the key ``own_data`` of a config, and everything that follows from it.

A detection config names a COCO-format folder, a segmentation config folders of images and label
maps. Class names and their number, the heads' ``num_classes`` and the metrics' annotation file
follow from the data.
"""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmse.datasets.coco_checks import coco_classes
from mmse.datasets.seg_checks import seg_classes
from mmse.utils.errors import UserError

HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def apply_own_data(cfg: Config) -> None:
    """Rewrite datasets, heads and evaluators of a config for its ``own_data``, if it has one.

    ``own_data`` is a dict of ``data_root`` and, for each of ``train`` and ``val`` (optionally
    ``test``, by default ``val``), in detection ``ann_file`` and ``img``, in segmentation ``img``
    and ``seg_map``, all relative to ``data_root``; ``scale``, (width, height) in pixels, replaces
    the size that images are scaled to.

    Raises:
        UserError: A key is missing or unknown, or a folder or file is not there.
    """
    own = cfg.get('own_data')
    if own is None:
        return
    segmentation = cfg.get('default_scope') == 'mmseg'
    _check_keys(own, ('img', 'seg_map') if segmentation else ('ann_file', 'img'))
    root = Path(own['data_root'])
    if not root.is_dir():
        raise UserError(f'own_data.data_root: there is no folder {root}')
    if segmentation:
        classes = seg_classes(root, root / own['train']['seg_map'])
    else:
        classes = coco_classes(root / own['train']['ann_file'])
    for loader in LOADERS:
        if cfg.get(loader) is None:
            continue
        split = own.get(loader.split('_')[0]) or own['val']
        dataset = innermost(cfg[loader]['dataset'])
        settings = _segmentation_dataset if segmentation else _detection_dataset
        kept = {k: dataset[k] for k in ('pipeline', 'filter_cfg', 'test_mode') if k in dataset}
        cfg[loader]['dataset'] = {
            **settings(root, split),
            'metainfo': {'classes': classes, 'palette': palette(len(classes))},
            **kept,
        }
        if 'scale' in own:
            _set_scale(cfg[loader]['dataset']['pipeline'], tuple(own['scale']))
        if segmentation:
            _fit_segmentation_loader(cfg[loader], training=loader == LOADERS[0])
    for loader in LOADERS[1:]:
        evaluator = cfg.get(loader.replace('dataloader', 'evaluator')) or []
        split = own.get(loader.split('_')[0]) or own['val']
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            if 'ann_file' in metric:
                metric['ann_file'] = str(root / split['ann_file'])
    _set_num_classes(cfg.model, len(classes))


def innermost(dataset: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The dataset inside wrappers such as RepeatDataset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def palette(n: int) -> list[tuple[int, int, int]]:
    """n colours that one can tell apart, RGB in 0..255."""
    import matplotlib  # here, because `import mmse` comes by

    colours = matplotlib.colormaps['turbo'].resampled(max(n, 2))
    return [tuple(int(255 * c) for c in colours(i)[:3]) for i in range(n)]  # type: ignore[misc]


def _check_keys(own: Mapping[str, Any], split_keys: tuple[str, ...]) -> None:
    allowed = {'data_root', 'train', 'val', 'test', 'scale'}
    if unknown := set(own) - allowed:
        raise UserError(
            f'own_data: unknown key {", ".join(sorted(unknown))}; '
            f'allowed: {", ".join(sorted(allowed))}'
        )
    for key in ('data_root', 'train', 'val'):
        if key not in own:
            raise UserError(f'own_data.{key} is missing')
    for split in ('train', 'val', 'test'):
        if split in own and set(own[split]) != set(split_keys):
            raise UserError(
                f'own_data.{split} has the keys {", ".join(own[split]) or "none"}; '
                f'it needs {" and ".join(split_keys)}'
            )


def _detection_dataset(root: Path, split: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'type': 'CocoDataset',
        'data_root': f'{root}/',
        'ann_file': split['ann_file'],
        'data_prefix': {'img': split['img']},
    }


def _segmentation_dataset(root: Path, split: Mapping[str, Any]) -> dict[str, Any]:
    suffixes = {
        key: _suffix(root / split[key], f'own_data: {split[key]}') for key in ('img', 'seg_map')
    }
    return {
        'type': 'BaseSegDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': split['img'], 'seg_map_path': split['seg_map']},
        'img_suffix': suffixes['img'],
        'seg_map_suffix': suffixes['seg_map'],
        'reduce_zero_label': False,
    }


def _suffix(folder: Path, where: str) -> str:
    if not folder.is_dir():
        raise UserError(f'{where}: there is no folder {folder}')
    known = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
    suffixes = {p.suffix for p in folder.iterdir() if p.suffix.lower() in known}
    if len(suffixes) != 1:
        found = ', '.join(sorted(suffixes)) or 'none'
        raise UserError(
            f'{where}: images of one kind of file are needed in {folder}, found {found}'
        )
    return suffixes.pop()


def _set_scale(pipeline: list[MutableMapping[str, Any]], scale: tuple[int, ...]) -> None:
    for step in pipeline:
        kind = step['type'].split('.')[-1]
        if kind == 'RandomChoiceResize':
            step['scales'] = [scale]
        elif kind in ('Resize', 'RandomResize'):
            step.pop('scale_factor', None)
            step['scale'] = scale


def _fit_segmentation_loader(loader: MutableMapping[str, Any], training: bool) -> None:
    for step in loader['dataset']['pipeline']:
        # Label 0 is the user's first class, also where the base config's data ignore it.
        step.pop('reduce_zero_label', None)
    if not training:
        loader['batch_size'] = 1  # mmseg evaluates images of different sizes one by one


def _set_num_classes(node: Any, n: int, in_head: bool = False) -> None:
    if isinstance(node, MutableMapping):
        if in_head and 'num_classes' in node:
            node['num_classes'] = n
        for key, value in node.items():
            _set_num_classes(value, n, in_head or key in HEADS)
    elif isinstance(node, list | tuple):
        for value in node:
            _set_num_classes(value, n, in_head)
