"""Overrides of a config that was read: dotted keys with new values."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmse.utils.errors import UserError

# Top-level keys that mean something to the Runner or to the tools of mmse.
MEANINGFUL = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'auto_scale_lr',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'launcher',
    'model_wrapper_cfg',
    'own_data',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def override(cfg: Config, overrides: Mapping[str, Any], name: str) -> None:
    """Apply overrides to a config.

    Args:
        cfg: The config; changed in place.
        overrides: Dotted keys with their new values.
        name: What the config is called in errors.

    Raises:
        UserError: An override changes nothing or does not fit.
    """
    _check_overrides(cfg, overrides)
    _open_presets(cfg, overrides)
    try:
        # MMEngine replaces the entries of a list only by dicts.
        entries = {k for k in overrides if isinstance(_get(cfg, k.rpartition('.')[0]), list)}
        cfg.merge_from_dict({k: _whole(k, v) for k, v in overrides.items() if k not in entries})
        for key in entries:
            _assign(cfg, key, overrides[key])
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f'--cfg-options do not fit {name}: {error}') from error


def walk(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists with its dotted place, outermost first."""
    items: Iterator[tuple[Any, Any]] | Any
    if isinstance(node, Mapping | Config):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        return
    for key, value in items:
        here = f'{place}.{key}' if place else str(key)
        yield here, value
        yield from walk(value, here)


def _check_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Refuse to override a variable of the file, which is already built into other keys."""
    for key in overrides:
        head = key.split('.')[0]
        if head in MEANINGFUL:
            continue
        # Custom keys are parts of the names of parameters, and not of the config.
        places = [
            place
            for place, _ in walk(cfg)
            if place.endswith(f'.{key}') and '.custom_keys.' not in place
        ]
        hint = f': override {" or ".join(places[:3])}' if places else ''
        if near := difflib.get_close_matches(head, MEANINGFUL & set(cfg), n=1):
            hint = hint or f'; did you mean {near[0]}?'
        raise UserError(
            f'--cfg-options {key}=... changes nothing: {head} is '
            + ('a variable of the config file, used while it is read' if head in cfg else 'no key')
            + hint
        )


def _whole(key: str, value: Any) -> Any:
    """An attention replaces the one that is there; MMEngine would merge the two."""
    if key.rpartition('.')[2] == 'attention' and isinstance(value, Mapping):
        return {**value, '_delete_': True}
    return value


def _open_presets(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Where a key of an attention is overridden that names a preset, make that preset a dict."""
    for key in overrides:
        # The attention of the backbone, of one stage or of one block.
        match = re.fullmatch(r'((.*\.)?attention(?:\.\d+)*)\.[a-z]\w*', key)
        if match and isinstance(preset := _get(cfg, match[1]), str):
            _assign(cfg, match[1], ConfigDict(preset=preset))


def _get(cfg: Config, place: str) -> Any:
    return dict(walk(cfg)).get(place)


def _assign(cfg: Config, place: str, value: Any) -> None:
    parent, _, key = place.rpartition('.')
    node = _get(cfg, parent)
    node[int(key) if isinstance(node, list) else key] = value
