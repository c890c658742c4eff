"""The identity of the data that a training reads: a digest of annotations, labels and images."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from mmse.datasets.shapes import DEFAULT_ROOT
from mmse.utils.errors import UserError

Dataset = MutableMapping[str, Any]


def data_digest(cfg: Config, splits: Sequence[str] = ('train', 'val')) -> str:
    """A digest of the data that a config trains and evaluates on.

    It covers the contents of the annotation and label files, those of the evaluators included, and
    the images' names relative to the data root and their sizes in bytes. So it does not depend on
    where the data lie, and takes little longer than listing them; an image that was replaced by
    another of the same size in bytes goes unnoticed. The built-in data are identified by the
    settings that they are generated from, and need not be there.

    Args:
        cfg: The full config.
        splits: Which of train, val and test count.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: The data are not there or cannot be read, or a folder of built-in data holds
            something else.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    identity: list[Any] = []
    built_in: list[Path] = []
    for split in splits:
        for dataset in leaf_datasets(cfg[f'{split}_dataloader']['dataset']):
            if is_built_in(dataset):
                built_in.append(Path(dataset.get('data_root', DEFAULT_ROOT)))
                identity.append([split, _settings(built_in[-1], dataset, split)])
            else:
                identity.append([split, _identity(dataset, split)])
    for split in splits:
        identity.append([split, _evaluator_files(cfg.get(f'{split}_evaluator'), split, built_in)])
    return _digest(identity)


def leaf_datasets(dataset: Dataset) -> list[Dataset]:
    """The datasets inside wrappers (``dataset``) and concatenations (``datasets``)."""
    if 'dataset' in dataset:
        return leaf_datasets(dataset['dataset'])
    if 'datasets' in dataset:
        return [leaf for inner in dataset['datasets'] for leaf in leaf_datasets(inner)]
    return [dataset]


def is_built_in(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset is one of ``mmse.datasets.builtin``, which generates its data."""
    kind = _class_of(dataset)
    return kind is not None and kind.__module__ == 'mmse.datasets.builtin'


def _class_of(dataset: Mapping[str, Any]) -> type[Any] | None:
    kind = dataset['type']
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope's
        found: type[Any] | None = registry.get(kind) if isinstance(kind, str) else kind
    return found


def _settings(root: Path, dataset: Dataset, split: str) -> dict[str, Any]:
    kind: Any = _class_of(dataset)
    try:
        settings: dict[str, Any] = kind.check(root, **(dataset.get('shapes') or {}))
        return settings
    except TypeError as error:
        raise UserError(f'{split}_dataloader.dataset.shapes: {error}') from error


def _identity(dataset: Dataset, split: str) -> dict[str, Any]:
    """Annotation files, label files and images of one dataset."""
    kind, root = _class_of(dataset), Path(dataset.get('data_root') or '.')
    if kind is None:
        raise UserError(f'{split}_dataloader: there is no dataset of type {dataset["type"]}')
    if not root.is_dir():
        raise UserError(f'{split}_dataloader: there is no data folder {root}')
    annotations = {
        place: _content(file)
        for place, value in _strings(dataset)
        if (file := root / value).is_file() or (file := Path(value)).is_file()
    }
    if not issubclass(kind, BaseDataset):  # which files it reads, only itself knows
        files = [path for path in root.rglob('*') if path.is_file()]
        return {'annotations': annotations, 'files': {_name(f, root): _size(f) for f in files}}
    images: dict[str, int | None] = {}
    labels: dict[str, str | None] = {}
    items = _items(dataset, split)
    for key, path in ((key, path) for item in items for key, path in _paths(item)):
        if key.startswith('img'):
            images[_name(path, root)] = _size(path)
        else:
            labels[_name(path, root)] = _content(path) if os.path.isfile(path) else None
    identity = {'annotations': annotations, 'labels': labels, 'images': images}
    if not annotations and not labels:  # they are in the images' names, or not in local files
        identity['items'] = [[v for k, v in item.items() if 'path' not in k] for item in items]
    return identity


def _items(dataset: Dataset, split: str) -> list[dict[str, Any]]:
    """What a dataset lists, before any filter of the config."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's reader prints
            built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
            items: list[dict[str, Any]] = built.load_data_list()
    except Exception as error:  # a dataset class is anybody's code
        raise UserError(
            f'{split}_dataloader: the data set cannot be read: {type(error).__name__}: {error}'
        ) from error
    return items


def _paths(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The files of one image: ``img_path``, ``seg_map_path``, ``xml_path`` and the like."""
    for key, value in item.items():
        if 'path' in key:
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str):
                    yield key, path


def _evaluator_files(evaluator: Any, split: str, built_in: Sequence[Path]) -> list[Any]:
    """The files that evaluators name, but for those of the built-in data."""
    found = []
    for place, value in _strings(evaluator):
        path = Path(value)
        if any(path.is_relative_to(root) for root in built_in):
            continue
        if path.is_file():
            found.append([place, _content(path)])
        elif place.endswith('ann_file') and '://' not in value:
            raise UserError(f'{split}_evaluator{place}: there is no file {path}')
    return found


def _strings(node: Any, place: str = '') -> Iterator[tuple[str, str]]:
    """Every string in nested dicts and lists with its place, pipelines left out."""
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key != 'pipeline':
                yield from _strings(value, f'{place}.{key}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _strings(value, f'{place}.{index}')


def _name(path: str | Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _size(path: str | Path) -> int | None:
    """Size in bytes; None if there is no such file, which is for other checks to judge."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _content(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _digest(what: Any) -> str:
    text = json.dumps(what, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, 'tolist') else str(value)
