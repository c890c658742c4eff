"""Putting attention into the backbones of an existing config."""

import inspect
from collections.abc import Iterator, MutableMapping
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.registry import MODELS

from mmse.models import SEResNet
from mmse.models.resolve import resolve_stages
from mmse.utils.errors import UserError

REPLACEMENTS = {
    'ResNet': 'mmse.SEResNet',
    'ResNetV1c': 'mmse.SEResNetV1c',
    'ResNetV1d': 'mmse.SEResNetV1d',
    'ResNeXt': 'mmse.SEResNeXt',
}
# Scalars that steer the attention as a whole; decay would pull them to 0 for no reason.
NO_DECAY = ('attention.alpha', 'attention.fusion_logits', 'attention.raw_temperature')


def parse_attention(text: str) -> Any:
    """The attention that a command line names.

    Args:
        text: A preset, or settings such as ``squeeze=avg+max,residual=True``.

    Raises:
        UserError: It is no preset, or a setting is wrong.
    """
    if '=' not in text:
        attention: Any = None if text == 'None' else text
    else:
        pairs = [item.split('=', 1) for item in text.split(',')]
        if any(len(pair) != 2 for pair in pairs):
            raise UserError(f'--attention {text}: give a preset, or KEY=VALUE,KEY=VALUE')
        attention = {key.strip(): yaml.safe_load(value) for key, value in pairs}
    resolve_stages(attention, (1,), '--attention')
    return attention


def swap_backbone(cfg: Config, attention: Any) -> list[str]:
    """Replace every backbone of the ResNet family in a config's model by ours.

    The backbones keep their settings. Where our defaults differ from those of the class that is
    replaced (``norm_eval`` of mmseg's ResNet), the old default is written out. Backbones of ours
    only get the attention. Alpha, temperature and fusion logits are exempted from weight decay.

    Args:
        cfg: A config with a ``model``, text or pure Python; changed in place.
        attention: What the backbones' blocks get; see ``mmse.models.SEResNet``.

    Returns:
        One line for each change: ``place: old -> new``.

    Raises:
        UserError: The model has no such backbone; it names what was found and what is supported.
    """
    changes: list[str] = []
    found: list[str] = []
    scope = cfg.get('default_scope') or 'mmengine'
    for place, node in _typed(cfg.get('model'), 'model'):
        name = _type_name(node['type'])
        if 'backbone' in place.rpartition('.')[2]:
            found.append(f'{place} ({name})')
        if name in REPLACEMENTS.values():
            changes.append(f'{place}.attention: {node.get("attention")!r} -> {attention!r}')
            node['attention'] = attention
        elif (new := REPLACEMENTS.get(name.split('.')[-1])) is not None:
            with MODELS.switch_scope_and_registry(scope) as registry:
                old = node['type'] if isinstance(node['type'], type) else registry.get(node['type'])
            if old is None:
                raise UserError(f'{place}: {name} is not there: install the package that has it')
            additions = {
                key: value
                for key, value in _defaults(old).items()
                if key not in node and key in _OURS and value != _OURS[key]
            }
            written = {'attention': attention, **additions}
            node.update({'type': new, **written})
            changes.append(f'{place}.type: {name} -> {new}')
            changes += [f'{place}.{key}: {value!r}' for key, value in written.items()]
    if not changes:
        raise UserError(
            f'no backbone to swap: found {", ".join(found) or "none"}; '
            f'supported: {", ".join(REPLACEMENTS)} of mmdet, mmseg and mmpretrain'
        )
    return changes + _spare_from_decay(cfg)


def _typed(node: Any, place: str) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Every dict with a ``type``: backbones have many keys (``teacher_backbone``) and depths."""
    if isinstance(node, MutableMapping):
        if 'type' in node:
            yield place, node
        for key, value in list(node.items()):
            yield from _typed(value, f'{place}.{key}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _typed(value, f'{place}[{index}]')


def _type_name(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    return f'{kind.__module__.split(".")[0]}.{kind.__name__}'


def _defaults(kind: type) -> dict[str, Any]:
    """Default arguments of a class, those of the classes that it hands them on to included."""
    defaults: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base):
            parameters = inspect.signature(vars(base)['__init__']).parameters.values()
            defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults


_OURS = _defaults(SEResNet)


def _spare_from_decay(cfg: Config) -> list[str]:
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, MutableMapping) or 'constructor' in wrapper:
        return []
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys = {**paramwise.get('custom_keys', {}), **{key: {'decay_mult': 0.0} for key in NO_DECAY}}
    wrapper['paramwise_cfg'] = {**paramwise, 'custom_keys': keys}
    return [f'optim_wrapper: no weight decay on {", ".join(NO_DECAY)}']
