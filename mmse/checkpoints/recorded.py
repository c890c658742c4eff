"""The attention in the config that a training writes into its checkpoints.

It is Python source, which is parsed but never run: literals and ``dict(key=value)`` only.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from mmse.models.keys import blocks_of, stage_depths
from mmse.models.resolve import resolve_stages
from mmse.utils.errors import UserError


def record_attention(attention: Any) -> dict[str, str]:
    """The ``meta`` of a checkpoint in which ``recorded_attention`` finds an attention."""
    return {'cfg': f'model = dict(backbone=dict(attention={attention!r}))\n'}


def recorded_attention(checkpoint: Mapping[str, Any]) -> Any:
    """The backbone's ``attention`` by the config in a checkpoint; None if there is none.

    Raises:
        UserError: The config is not made of literals there.
    """
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return None
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'model':
                backbone = _items(node.value).get('backbone')
                found = _items(backbone).get('attention') if backbone else None
                return _literal(found) if found else None
    except (SyntaxError, ValueError) as error:
        raise UserError(f'the attention in its config cannot be read: {error}') from error
    return None


def recorded_blocks(
    checkpoint: Mapping[str, Any], prefix: str, weights: Iterable[str]
) -> dict[str, dict[str, Any]] | None:
    """The settings of each block's attention by the config in a checkpoint.

    They stand in for the records of weights that were saved without them.

    Args:
        checkpoint: What was read from the file.
        prefix: The prefix of the backbone's weights, such as ``backbone.``.
        weights: The backbone's keys, without the prefix.

    Returns:
        ``AttentionSettings.to_dict()`` by the block's name; None if there is no config.
    """
    try:
        attention = recorded_attention(checkpoint) if prefix == 'backbone.' else None
        if attention is None:
            return None
        blocks = blocks_of(weights)
        stages = resolve_stages(attention, stage_depths(blocks))
    except UserError:
        return None  # a config of another form says nothing
    flat = [settings for stage in stages for settings in stage]
    return {name: s.to_dict() for name, s in zip(blocks, flat, strict=True) if s is not None}


def _items(node: ast.expr) -> dict[str, ast.expr]:
    """The entries of a dict that is written as a literal or as a call."""
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(k): v for k, v in zip(node.keys, node.values, strict=True) if k}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    raise ValueError(f'{ast.unparse(node)[:60]} is no dict')


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict | ast.Call):
        return {key: _literal(value) for key, value in _items(node).items()}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(entry) for entry in node.elts]
    return ast.literal_eval(node)
