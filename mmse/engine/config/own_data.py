"""A user's own data: the key ``own_data`` of a config, and everything that follows from it.

A detection config names a COCO-format folder, a segmentation config folders of images and label
maps. Class names and their number, the heads' ``num_classes`` and the metrics' annotation file
follow from the data. What the user sets beside ``own_data`` holds, or is refused by its name.
"""

from pathlib import Path

from mmengine.config import Config

from mmse.datasets.classes import seg_classes
from mmse.datasets.coco_file import labelled_classes
from mmse.datasets.listings import check_listings
from mmse.engine.config.heads import fit_heads
from mmse.engine.config.inherited import inherited
from mmse.engine.config.kinds import name_classes, scope_of
from mmse.engine.config.own_datasets import LOADERS, Loader
from mmse.engine.config.own_metrics import fit_evaluator
from mmse.engine.config.own_spec import OwnData, Part, read_own_data
from mmse.utils.errors import UserError


def apply_own_data(cfg: Config, name: str) -> None:
    """Rewrite data sets, heads and evaluators of a config for its ``own_data``, if it has one.

    ``own_data`` is a dict of ``data_root`` and, for each of ``train`` and ``val`` (optionally
    ``test``, by default ``val``), in detection ``ann_file`` and ``img``, in segmentation ``img``
    and ``seg_map`` and, for a list of names, ``ann_file``, all relative to ``data_root``. ``train``
    may be a list of them, and ``val`` None. ``scale``, (width, height) in pixels, replaces the size
    that images are scaled to. The key itself is gone afterwards: the config is complete.

    Args:
        cfg: The config with its overrides; changed in place.
        name: Its file, by which a user's settings are told from inherited ones.

    Raises:
        UserError: A key is missing or unknown, a folder or file is not there, or a setting beside
            ``own_data`` cannot hold.
    """
    if cfg.get('own_data') is None:
        return
    scope = 'mmseg' if scope_of(cfg) == 'mmseg' else 'mmdet'
    own = read_own_data(cfg.pop('own_data'), scope == 'mmseg')
    below = inherited(name)
    loaders = {
        split: Loader(cfg, below, split, scope)
        for split in LOADERS
        if cfg.get(f'{split}_dataloader') is not None
    }
    for key in ('model', 'train_dataloader'):
        if cfg.get(key) is None:
            raise UserError(f'{name} has no {key}: give own_data to the config of a whole run')
    if scope == 'mmseg':
        labelled = [part.seg_map for of in own.splits.values() for part in of or () if part.seg_map]
        check_listings(own.root, [own.root / seg_map for seg_map in labelled])
    classes = _classes(own, loaders, scope)
    for split, loader in loaders.items():
        parts = own.splits[split]
        if split == 'test' and parts is None:
            if loader.is_elsewhere():
                loader.name_classes(classes)
                continue
            parts = own.splits['val']
            if 'val' in loaders:
                loader.take_settings(loaders['val'])
        if parts is None:
            cfg['test_pipeline'] = loader.pipeline(own.scale)  # for predictions
            for part in ('dataloader', 'evaluator', 'cfg'):
                cfg[f'{split}_{part}'] = None
            continue
        loader.fit(own.root, parts, classes, own.scale)
        if split != 'train':
            file = parts[0].ann_file
            ann_file = str(own.root / file) if file and scope == 'mmdet' else None
            fit_evaluator(cfg, below, split, scope, ann_file)
    fit_heads(cfg, below, classes)
    name_classes(cfg._cfg_dict)


def _classes(own: OwnData, loaders: dict[str, Loader], scope: str) -> tuple[str, ...]:
    """The classes that the user chooses, or those of the training data."""
    chosen = {
        split: names
        for split, loader in loaders.items()
        if (own.splits[split] or not loader.is_elsewhere()) and (names := loader.chosen_classes())
    }
    if not chosen:
        return _classes_of_data(own, scope, loaders['train'])
    first, *others = chosen
    for other in others:
        if chosen[other] != chosen[first]:
            raise UserError(
                f'{first}_dataloader has the classes {", ".join(chosen[first])}, '
                f'{other}_dataloader {", ".join(chosen[other])}: set the same'
            )
    if scope == 'mmdet':
        known = _classes_of_data(own, scope, loaders['train'])
        if unknown := [name for name in chosen[first] if name not in known]:
            raise UserError(
                f'{first}_dataloader.dataset.metainfo.classes has {", ".join(unknown)}, but the '
                f'classes of own_data.train are {", ".join(known)}'
            )
    return chosen[first]


def _classes_of_data(own: OwnData, scope: str, loader: Loader) -> tuple[str, ...]:
    parts = own.splits['train'] or ()
    if scope == 'mmdet':
        lists = [labelled_classes(own.root / str(part.ann_file)) for part in parts]
        for part, names in zip(parts, lists, strict=True):
            if names != lists[0]:
                raise UserError(
                    f'own_data.train: {parts[0].ann_file} has the classes {", ".join(lists[0])}, '
                    f'{part.ann_file} {", ".join(names)}: make them equal'
                )
        return lists[0]
    names = max((_names(own.root, part, loader) for part in parts), key=len)
    # Names that are made up count from label 0.
    made_up = names == tuple(f'class_{k}' for k in range(len(names)))
    return names[1:] if loader.settings.get('reduce_zero_label') and made_up else names


def _names(root: Path, part: Part, loader: Loader) -> tuple[str, ...]:
    """Class names of one set of label maps, which may lie beside their images."""
    return seg_classes(root, root / str(part.seg_map), maps=loader.maps(root, part))
