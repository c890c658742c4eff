"""A data loader of a config, fitted to a user's own data."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

from mmse.datasets.listings import label_colours
from mmse.engine.config.kinds import bare_name, class_of, innermost, leaves, parameters, same
from mmse.engine.config.own_bases import check_base
from mmse.engine.config.own_files import image_suffixes, img_folder, maps_of, suffix_pairs
from mmse.engine.config.own_spec import Part
from mmse.engine.config.pipelines import labels_off, load_by_colour, set_scale, zero_label
from mmse.utils.errors import UserError

LOADERS = ('train', 'val', 'test')
# What own_data says itself.
WHERE = {
    'mmdet': ('data_root', 'ann_file', 'data_prefix'),
    'mmseg': ('data_root', 'data_prefix'),
}
# What belongs to the data, so that the base's does not hold, but the user's does.
ABOUT = {
    'mmdet': ('type', 'metainfo'),
    'mmseg': (
        *('type', 'metainfo', 'ann_file', 'img_suffix', 'seg_map_suffix'),
        *('reduce_zero_label', 'ignore_index'),
    ),
}
GENERIC = {'mmdet': 'CocoDataset', 'mmseg': 'BaseSegDataset'}


class Loader:
    """One data loader of a config, and what its user sets in it.

    Args:
        cfg: The config; ``fit`` changes it in place.
        below: What its file inherits.
        split: train, val or test.
        scope: mmdet or mmseg.
    """

    def __init__(self, cfg: Config, below: Config, split: str, scope: str) -> None:
        self.place = f'{split}_dataloader'
        self.split, self.scope = split, scope
        self._found: dict[
            Part, list[tuple[str, str]]
        ] = {}  # what suffix_pairs found, and warned of
        # Of its own: test_dataloader is often the same object as val_dataloader.
        cfg[self.place] = copy.deepcopy(cfg[self.place])
        self.node = cfg[self.place]
        loader = below.get(self.place) or {}
        before = leaves(loader['dataset'])[0] if loader else {}
        dataset = innermost(self.node['dataset'])
        if 'datasets' in dataset:
            if not loader or not same(dataset, innermost(loader['dataset'])):
                raise UserError(
                    f'{self.place}.dataset is a {bare_name(dataset["type"])} of data sets beside '
                    'own_data: give own_data.train a list of sets, or leave own_data out'
                )
            dataset = leaves(dataset)[0]
        check_base(self.node, dataset, self.place, scope)
        self.dataset: MutableMapping[str, Any] = dataset
        bound = (*WHERE[scope], *ABOUT[scope])
        #: What the user sets of what belongs to the data.
        self._theirs = {
            key
            for key, value in dataset.items()
            if key != '_scope_' and not (key in before and same(value, before[key]))
        }
        self.settings = {key: dataset[key] for key in bound if key in self._theirs}
        if described := self.settings.get('metainfo'):
            was = before.get('metainfo') or {}
            self.settings['metainfo'] = {
                key: value
                for key, value in described.items()
                if key != '_scope_' and not (key in was and same(value, was[key]))
            }
        if (
            scope == 'mmseg'
            and 'reduce_zero_label' not in self.settings
            and 'pipeline' in self._theirs
            and zero_label(dataset.get('pipeline') or ())
        ):
            self.settings['reduce_zero_label'] = True

    def is_elsewhere(self) -> bool:
        """Whether the user says where other data for this loader are."""
        return any(key in self.settings for key in WHERE[self.scope])

    def chosen_classes(self) -> tuple[str, ...] | None:
        """The classes that the user sets, if any."""
        classes = (self.settings.get('metainfo') or {}).get('classes')
        if classes is None:
            return None
        if isinstance(classes, str):
            raise UserError(
                f'{self.place}.dataset.metainfo.classes is the text {classes!r}: write a tuple of '
                f'names, such as ({classes!r},) with its comma'
            )
        return tuple(map(str, classes))

    def name_classes(self, classes: Sequence[str]) -> None:
        """Name the classes of data that the user describes without ``own_data``."""
        known = {'classes': classes, 'palette': palette(len(classes))}
        self.dataset['metainfo'] = known | (self.settings.get('metainfo') or {})

    def take_settings(self, other: 'Loader') -> None:
        """Take what the user sets in another loader of the same data and not in this one."""
        self.settings = other.settings | self.settings

    def pipeline(self, scale: tuple[int, int] | None) -> Any:
        """How the loader prepares images, at another scale if one is given."""
        leaf = leaves(self.node['dataset'])[0]
        if scale is not None:
            set_scale(leaf, scale, with_labels=self.scope == 'mmdet')
        return leaf['pipeline']

    def fit(
        self,
        root: Path,
        parts: Sequence[Part],
        classes: Sequence[str],
        scale: tuple[int, int] | None,
    ) -> None:
        """Make the loader read the user's data.

        Raises:
            UserError: A setting cannot hold, or the files do not fit together.
        """
        fitted = [d for part in parts for d in self._datasets(root, part, classes)]
        new = fitted[0] if len(fitted) == 1 else {'type': 'ConcatDataset', 'datasets': fitted}
        if innermost(self.node['dataset']) is self.node['dataset']:
            self.node['dataset'] = ConfigDict(new)
        else:
            wrapper = self.node['dataset']
            while 'dataset' in wrapper['dataset']:
                wrapper = wrapper['dataset']
            wrapper['dataset'] = ConfigDict(new)
        for leaf in leaves(self.node['dataset']):
            if self.scope == 'mmseg':
                labels_off(leaf['pipeline'], entirely=parts[0].seg_map is None)
        if scale is not None:
            set_scale(self.node['dataset'], scale, self.split == 'train' or self.scope == 'mmdet')
        if self.scope == 'mmseg' and self.split != 'train':
            self.node['batch_size'] = 1  # mmseg evaluates images of different sizes one by one

    def _datasets(self, root: Path, part: Part, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The data sets of one part: in segmentation one for each ending of its images."""
        kind = self._type()
        taken = parameters(class_of(kind, DATASETS, self.scope))
        if lost := sorted(self._theirs - set(taken) - {'type'}):
            raise UserError(
                f'{self.place}.dataset.{lost[0]} is set, but {bare_name(kind)} takes no {lost[0]}'
            )
        bound = (*WHERE[self.scope], *ABOUT[self.scope])
        kept = {k: v for k, v in self.dataset.items() if k in {*taken, '_scope_'} - {*bound}}
        if self.split != 'train':
            kept.setdefault('test_mode', True)  # or images without objects are left out
        wheres = self._segmentation(root, part) if self.scope == 'mmseg' else [_coco(root, part)]
        names = {'classes': tuple(classes), 'palette': palette(len(classes))}
        about = {key: self.settings[key] for key in ABOUT[self.scope] if key in self.settings}
        metainfo = {**names, **(about.pop('metainfo', None) or {})}
        for where in wheres:
            self._refuse_conflicts(where)
        datasets = [
            copy.deepcopy({**kept, **where, **about, 'type': kind, 'metainfo': metainfo})
            for where in wheres
        ]
        if part.seg_map is not None and (
            colours := label_colours(root, root / part.seg_map, self.maps(root, part))
        ):
            for dataset in datasets:
                load_by_colour(dataset['pipeline'], colours)
        return datasets

    def _type(self) -> Any:
        """The data set's class: the config's where it reads such data, else the plain one."""
        generic = class_of(f'{self.scope}.{GENERIC[self.scope]}', DATASETS, self.scope)
        kind = class_of(self.dataset['type'], DATASETS, self.scope)
        reads_alike = kind is not None and issubclass(kind, generic) and _reads_as(kind, generic)
        if 'type' in self.settings and not reads_alike:
            raise UserError(
                f'{self.place}.dataset.type is {bare_name(self.dataset["type"])}, which does not '
                f'read what own_data describes: leave it out, or write a subclass of '
                f'{GENERIC[self.scope]}'
            )
        if kind is generic or (reads_alike and 'type' in self.settings):
            return self.dataset['type']
        return f'{self.scope}.{GENERIC[self.scope]}'

    def maps(self, root: Path, part: Part) -> list[str]:
        """The names of a part's label maps, without pictures that no image has a place for."""
        return maps_of(root / part.img, root / str(part.seg_map), self._pairs(root, part))

    def _pairs(self, root: Path, part: Part) -> list[tuple[str, str]]:
        """The endings of images and of their label maps."""
        where = f'own_data.{self.split}'
        if {'img_suffix', 'seg_map_suffix'} <= set(self.settings):
            return [(self.settings['img_suffix'], self.settings['seg_map_suffix'])]
        if part.seg_map is None:
            return [(suffix, '.png') for suffix in image_suffixes(root / part.img, where)]
        if part not in self._found:
            listing = root / part.ann_file if part.ann_file else None
            img, seg_map = root / part.img, root / part.seg_map
            self._found[part] = suffix_pairs(img, seg_map, where, listing)
        return [
            (self.settings.get('img_suffix', img), self.settings.get('seg_map_suffix', seg_map))
            for img, seg_map in self._found[part]
        ]

    def _segmentation(self, root: Path, part: Part) -> list[dict[str, Any]]:
        prefix = {'img_path': part.img}
        if part.seg_map is not None:
            prefix['seg_map_path'] = part.seg_map
        dataset: dict[str, Any] = {'data_root': str(root), 'data_prefix': prefix}
        if part.ann_file is not None:
            dataset['ann_file'] = part.ann_file
        return [
            {**dataset, 'img_suffix': image, 'seg_map_suffix': label, 'reduce_zero_label': False}
            for image, label in self._pairs(root, part)
        ]

    def _refuse_conflicts(self, where: Mapping[str, Any]) -> None:
        for key in (*WHERE[self.scope], 'ann_file'):
            theirs = self.settings.get(key)
            if key in where and theirs is not None and theirs != where[key]:
                raise UserError(
                    f'{self.place}.dataset.{key}={theirs!r} is set beside own_data, which says '
                    f'{where[key]!r}: set it in own_data.{self.split}'
                    + (', or leave own_data out' if self.split == 'train' else '')
                )


def palette(n: int) -> list[tuple[int, int, int]]:
    """n colours that one can tell apart, RGB in 0..255."""
    import matplotlib  # here, because `import mmse` comes by

    colours = matplotlib.colormaps['turbo'].resampled(max(n, 2))
    rgb = [[int(255 * value) for value in colours(i)[:3]] for i in range(n)]
    return [(red, green, blue) for red, green, blue in rgb]


def _coco(root: Path, part: Part) -> dict[str, Any]:
    return {
        'data_root': f'{root}/',
        'ann_file': part.ann_file,
        'data_prefix': {'img': img_folder(root, part.img, str(part.ann_file))},
    }


def _reads_as(kind: type, generic: type) -> bool:
    """Whether a class reads its files as another does; some only inherit its name."""
    if kind.__module__.startswith('mmse.'):
        return False  # the built-in data are made, not read
    return all(
        getattr(kind, method) is getattr(generic, method)
        for method in ('load_data_list', 'parse_data_info')
        if hasattr(generic, method)
    )
