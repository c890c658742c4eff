"""Putting attention into the backbones of an existing config."""

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import yaml
from mmengine.config import Config
from mmengine.registry import MODELS

from mmse.engine.config.attention_params import set_attention_rate, spare_from_decay
from mmse.models import SEResNet
from mmse.models.resolve import resolve_stages
from mmse.utils.errors import UserError

REPLACEMENTS = {
    'ResNet': 'mmse.SEResNet',
    'ResNetV1c': 'mmse.SEResNetV1c',
    'ResNetV1d': 'mmse.SEResNetV1d',
    'ResNeXt': 'mmse.SEResNeXt',
}


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


def swap_backbone(cfg: Config, attention: Any, lr_mult: float | None = None) -> list[str]:
    """Replace every backbone of the ResNet family in a config's model by ours.

    The backbones keep their settings. Where our defaults differ from those of the class that is
    replaced (``norm_eval`` of mmseg's ResNet), the old default is written out. Backbones of ours
    only get the attention. Alpha, temperature and fusion logits are exempted from weight decay.

    Args:
        cfg: A config with a ``model``, text or pure Python; changed in place, or not at all where a
            backbone is refused.
        attention: What the backbones' blocks get; see ``mmse.models.SEResNet``.
        lr_mult: The attention's learning rate over that of its block; None leaves it to the
            config. docs/choosing.md says which to take. A training refuses it beside OneCycleLR.

    Returns:
        One line for each change: ``place: old -> new``.

    Raises:
        UserError: The model has no such backbone, or one that ours cannot replace; it names what
            was found and what is supported. Or the optimizer's config leaves no place for
            ``lr_mult``.
    """
    swaps: list[_Swap] = []
    found: list[str] = []
    default = cfg.get('default_scope') or 'mmengine'
    for place, node, scope in _typed(cfg.get('model'), 'model', default):
        name = _type_name(node['type'])
        if 'backbone' in place.rpartition('.')[2]:
            found.append(f'{place} ({name})')
        if name in REPLACEMENTS.values():
            line = f'{place}.attention: {node.get("attention")!r} -> {attention!r}'
            swaps.append(_Swap(place, node, {'attention': attention}, [], [line]))
        elif (new := REPLACEMENTS.get(name.split('.')[-1])) is not None:
            swaps.append(_translated(place, node, name, new, attention, scope))
    if not swaps:
        raise UserError(
            f'no backbone to swap: found {", ".join(found) or "none"}; '
            f'supported: {", ".join(REPLACEMENTS)} of mmdet, mmseg and mmpretrain'
        )
    blocks = [block for swap in swaps for block in _blocks(swap.place, swap.node)]
    # Everything is known to fit before anything is changed.
    wrapper = copy.deepcopy(cfg.get('optim_wrapper'))
    steered = spare_from_decay(wrapper, blocks)
    if lr_mult is not None:
        steered += set_attention_rate(wrapper, blocks, lr_mult)
    for swap in swaps:
        for key in swap.removed:
            del swap.node[key]
        swap.node.update(swap.written)
    if steered:
        cfg['optim_wrapper'] = wrapper
    return [line for swap in swaps for line in swap.lines] + steered


def has_attention(cfg: Config) -> bool:
    """Whether a backbone of ours in a config has attention."""
    return any(
        node.get('attention') is not None
        for _, node, _ in _typed(cfg.get('model'), 'model', 'mmengine')
        if _type_name(node['type']) in REPLACEMENTS.values()
    )


def give_attention_a_rate(cfg: Config, lr_mult: float) -> list[str]:
    """Give the attention of our backbones in a config a learning rate of its own.

    Args:
        cfg: A config; changed in place.
        lr_mult: The attention's learning rate over that of its block.

    Returns:
        One line for the change.

    Raises:
        UserError: There is no backbone of ours, or the optimizer's config leaves no place for it.
    """
    blocks = [
        block
        for place, node, _ in _typed(cfg.get('model'), 'model', 'mmengine')
        if _type_name(node['type']) in REPLACEMENTS.values()
        for block in _blocks(place, node)
    ]
    if not blocks:
        raise UserError('there is no backbone of mmse whose attention could get a learning rate')
    return set_attention_rate(cfg.get('optim_wrapper'), blocks, lr_mult)


class _Swap(NamedTuple):
    """What becomes of one backbone: its node in the config, keys to write and to remove."""

    place: str
    node: MutableMapping[str, Any]
    written: dict[str, Any]
    removed: list[str]
    lines: list[str]


def _translated(
    place: str, node: MutableMapping[str, Any], name: str, new: str, attention: Any, scope: str
) -> _Swap:
    """The swap of a backbone of another package.

    Raises:
        UserError: Its class is not installed, or has settings that ours has not.
    """
    with MODELS.switch_scope_and_registry(scope) as registry:
        old = node['type'] if isinstance(node['type'], type) else registry.get(node['type'])
    if old is None:
        raise UserError(f'{place}: {name} is not there: install the package that has it')
    written: dict[str, Any] = {'type': new, 'attention': attention}
    removed: list[str] = []
    strange = []
    for key, default in {**_defaults(old), **{k: node[k] for k in node if k != 'type'}}.items():
        value = node.get(key, default)
        if key in _RENAMED:
            removed += [key] if key in node else []
            if value != _OURS[_RENAMED[key]]:
                written[_RENAMED[key]] = value
        elif key == 'expansion':
            removed += [key] if key in node else []
            strange += [] if value in (None, _expansion(node)) else [f'{key}={value!r}']
        elif key not in _OURS and key != 'depth':
            strange.append(f'{key}={value!r}')
        elif (
            key not in node
            and key in _OURS
            and value != _OURS[key]
            and not _is_standard(key, value)
        ):
            written[key] = value
    if strange:
        raise UserError(
            f'{place}: {name} of {old.__module__.split(".")[0]} has {", ".join(strange)}, which '
            f'{new} does not have'
        )
    lines = [f'{place}.type: {name} -> {new}']
    lines += [f'{place}.{key}: {value!r}' for key, value in written.items() if key != 'type']
    return _Swap(place, node, written, removed, lines)


# Arguments of mmpretrain's ResNeXt under our names.
_RENAMED = {'width_per_group': 'base_width'}


def _expansion(node: Mapping[str, Any]) -> int | None:
    """Output channels of a block over its planes, which a depth has in our backbones."""
    known = SEResNet.arch_settings.get(node.get('depth', 0))
    return known[0].expansion if known else None


def _is_standard(key: str, value: Any) -> bool:
    """Whether it is the initialisation that our backbone has without ``init_cfg``."""
    if key != 'init_cfg' or not isinstance(value, list):
        return False
    layers = {
        cfg['type']: (cfg.get('layer'), cfg.get('val'))
        for cfg in value
        if set(cfg) <= {'type', 'layer', 'val'}
    }
    return len(layers) == len(value) and layers == {
        'Kaiming': (['Conv2d'], None),
        'Constant': (['_BatchNorm', 'GroupNorm'], 1),
    }


def _blocks(place: str, node: Mapping[str, Any]) -> list[str]:
    """Names of a backbone's blocks, as the model's parameters begin."""
    prefix = re.sub(r'\[(\d+)\]', r'.\1', place.partition('.')[2])
    known = SEResNet.arch_settings.get(node.get('depth', 0))
    stages = known[1][: node.get('num_stages', 4)] if known else ()
    return [f'{prefix}.layer{i + 1}.{j}' for i, n in enumerate(stages) for j in range(n)]


def _typed(
    node: Any, place: str, scope: str
) -> Iterator[tuple[str, MutableMapping[str, Any], str]]:
    """Every dict with a ``type``, and the scope that it is built in.

    Backbones have many keys (``teacher_backbone``) and depths.
    """
    if isinstance(node, MutableMapping):
        scope = node.get('_scope_', scope)
        if 'type' in node:
            yield place, node, scope
        for key, value in list(node.items()):
            yield from _typed(value, f'{place}.{key}', scope)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _typed(value, f'{place}[{index}]', scope)


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
