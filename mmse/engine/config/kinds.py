"""The ``type`` of a config's entries: a name in a text config, a class in a pure-Python one."""

import inspect
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry


def bare_name(kind: Any) -> str:
    """The name of a class without its package, whichever way the config gives it."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else str(kind.__name__)


def scope_of(cfg: Config) -> str:
    """The package whose names a config uses, ``mmdet`` or ``mmseg``, say.

    Pure-Python configs often have no ``default_scope``; the class of their model tells it.
    """
    if scope := cfg.get('default_scope'):
        return str(scope)
    kind = (cfg.get('model') or {}).get('type')
    if isinstance(kind, str):
        return kind.partition('.')[0] if '.' in kind else 'mmengine'
    return str(kind.__module__).partition('.')[0] if kind is not None else 'mmengine'


def class_of(kind: Any, registry: Registry, scope: str) -> Any:
    """The class that a ``type`` stands for; None if the registry has no such name."""
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class by name, those of the classes that it hands them on to included."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base) and base is not object:
            found |= inspect.signature(vars(base)['__init__']).parameters
    return found


def wrappers_and_leaf(
    dataset: MutableMapping[str, Any],
) -> tuple[list[MutableMapping[str, Any]], MutableMapping[str, Any]]:
    """The wrappers around a data set, such as RepeatDataset, outermost first, and what is inside.

    What is inside may be a ConcatDataset.
    """
    wrappers = []
    while 'dataset' in dataset:
        wrappers.append(dataset)
        dataset = dataset['dataset']
    return wrappers, dataset


def innermost(dataset: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The data set inside wrappers such as RepeatDataset."""
    return wrappers_and_leaf(dataset)[1]


def leaves(dataset: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    """Every data set that reads files itself, inside wrappers and concatenations."""
    dataset = innermost(dataset)
    if 'datasets' in dataset:
        return [leaf for inner in dataset['datasets'] for leaf in leaves(inner)]
    return [dataset]


def metrics_of(evaluator: Any) -> list[MutableMapping[str, Any]]:
    """The metrics of a config's evaluator, which is one metric, a list, or an Evaluator of them."""
    if not evaluator:
        return []
    entries = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
    return [
        metric
        for entry in entries
        for metric in (metrics_of(entry['metrics']) if 'metrics' in entry else [entry])
    ]


def name_classes(node: Any) -> Any:
    """Put the full name of every class in a config in its place; MMEngine writes no other.

    What a pure-Python config has imported is kept as MMEngine keeps it.

    Args:
        node: A config or a part of one; its dicts are changed in place.

    Returns:
        The part itself, its lists and tuples rebuilt.
    """
    if isinstance(node, MutableMapping):
        # Not node.items(), which imports what a pure-Python config names.
        items: Iterable[tuple[str, Any]] = dict.items(node)  # type: ignore[arg-type]
        for key, value in items:
            node[key] = name_classes(value)
        return node
    if isinstance(node, list | tuple):
        return type(node)(name_classes(value) for value in node)
    if inspect.isclass(node) or inspect.isfunction(node):
        return f'{node.__module__}.{node.__qualname__}'
    return node


def at(node: Any, place: str) -> Any:
    """The value at a dotted place of nested dicts and lists; None if there is none."""
    for key in place.split('.'):
        if isinstance(node, Mapping | Config):
            node = node.get(key)
        elif isinstance(node, list | tuple) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal but for the scopes that MMEngine writes into what is inherited
    from another package."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = (set(one) | set(other)) - {'_scope_'}
        return all(key in one and key in other and same(one[key], other[key]) for key in keys)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
