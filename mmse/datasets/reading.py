"""One data set of a config as its training reads it: what it lists, keeps, and how it loads."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS, TRANSFORMS, Registry

from mmse.utils.errors import UserError

# Transforms of these packages that are not named Load... augment or pack.
LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmse')


@dataclass
class Head:
    """The transforms of a pipeline that load images and annotations.

    Args:
        image: Those that load images.
        labels: Those that load annotations, and what the user's own transforms make of them.
        custom: Whether transforms of no OpenMMLab package are among them, which may change an
            image or its annotations in any way.
        place: Place of the transform that loads images, such as
            ``train_dataloader.dataset.pipeline.0``.
    """

    image: Compose
    labels: Compose
    custom: bool
    place: str

    def load(self, item: dict[str, Any]) -> dict[str, Any]:
        """One item with its image and annotations, before any augmentation."""
        loaded: dict[str, Any] = self.labels(self.image(item))
        return loaded


@dataclass
class Reading:
    """A data set that was built from its config.

    Args:
        place: Its place in the config, such as ``train_dataloader.dataset``.
        cfg: Its config.
        dataset: The data set, with all of its pipeline.
        listed: All items that it lists.
        kept: Those that its filters keep.
        items: Those of them that ``indices`` choose; the items of the training.
        head: The transforms that load.
    """

    place: str
    cfg: Mapping[str, Any]
    dataset: BaseDataset
    listed: Sequence[dict[str, Any]]
    kept: Sequence[dict[str, Any]]
    items: Sequence[dict[str, Any]]
    head: Head

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their labels."""
        return tuple(self.dataset.metainfo.get('classes') or ())


class Leaf(NamedTuple):
    """A data set that reads files itself, inside wrappers and concatenations.

    Args:
        place: Its place in the config, such as ``train_dataloader.dataset.datasets.0``.
        cfg: Its config.
        wrapper: The config of the wrapper right around it, if there is one.
    """

    place: str
    cfg: Mapping[str, Any]
    wrapper: Mapping[str, Any] | None


def leaves(cfg: Config, split: str) -> list[Leaf]:
    """The data sets of a split, in the order of the config."""
    return list(_leaves(cfg[f'{split}_dataloader']['dataset'], f'{split}_dataloader.dataset', None))


def dataset_class(cfg: Mapping[str, Any], place: str) -> type[Any]:
    """The class of a data set, which text and pure-Python configs name differently.

    Raises:
        UserError: It is not registered.
    """
    return _resolve(DATASETS, cfg.get('type'), place, 'dataset')


def type_name(kind: str | type[Any]) -> str:
    """The name of a type as a config gives it, as text or as a class."""
    return kind if isinstance(kind, str) else kind.__name__


def read_dataset(cfg: Mapping[str, Any], place: str) -> Reading:
    """Build a data set as the training does, and keep what its filters leave out.

    Raises:
        UserError: It or a transform of its pipeline cannot be built, or its files cannot be read.
    """
    head = _head(cfg.get('pipeline') or [], place)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's reader prints
            dataset: BaseDataset = DATASETS.build(
                {**cfg, 'lazy_init': True, 'serialize_data': False}
            )
            filters = dataset.filter_data
            listed: list[dict[str, Any]] = []
            kept: list[dict[str, Any]] = []

            def filter_data() -> list[dict[str, Any]]:
                listed.extend(dataset.data_list)
                kept.extend(filters())
                return kept

            dataset.filter_data = filter_data
            dataset.full_init()
    except UserError:
        raise
    except Exception as error:  # a data set's class is anybody's code
        raise UserError(f'{place}: the data set cannot be read: {reason(error)}') from error
    return Reading(place, cfg, dataset, listed, kept, dataset.data_list, head)


def reason(error: Exception) -> str:
    """The class and the first line of an exception's message."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return f'{type(error).__name__}: {text.splitlines()[0]}' if text else type(error).__name__


def _leaves(
    dataset: Mapping[str, Any], place: str, wrapper: Mapping[str, Any] | None
) -> Iterator[Leaf]:
    if 'dataset' in dataset:
        yield from _leaves(dataset['dataset'], f'{place}.dataset', dataset)
    elif 'datasets' in dataset:
        for index, inner in enumerate(dataset['datasets']):
            yield from _leaves(inner, f'{place}.datasets.{index}', None)
    else:
        yield Leaf(place, dataset, wrapper)


def _head(pipeline: Sequence[Any], place: str) -> Head:
    image, labels, custom, at_head = [], [], False, True
    where = f'{place}.pipeline'
    for index, step in enumerate(pipeline):
        at = f'{place}.pipeline.{index}'
        by_config = isinstance(step, Mapping)
        kind = _resolve(TRANSFORMS, step.get('type'), at, 'transform') if by_config else type(step)
        own = kind.__module__.split('.')[0] not in LIBRARIES
        loads = kind.__name__.startswith('Load')
        at_head = at_head and (loads or own)
        if loads and 'Image' in kind.__name__:
            image.append(step)
            where = at
        elif loads or (own and at_head):
            labels.append(step)
        custom = custom or (own and at_head)
    try:
        return Head(Compose(image), Compose(labels), custom, where)
    except Exception as error:  # a transform is anybody's code
        raise UserError(f'{place}.pipeline cannot be built: {reason(error)}') from error


def _resolve(registry: Registry, kind: Any, place: str, what: str) -> type[Any]:
    """A registered class; pure-Python configs hold the class itself."""
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(None) as scoped:  # the default scope's
            found: type[Any] | None = scoped.get(kind)
    else:
        found = kind
    if found is None:
        raise UserError(f'{place}: there is no {what} of type {kind}')
    return found
