"""The backbones of mmse in the config of a model, and their attention."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from mmse.engine.config import walk
from mmse.models import SEResNet
from mmse.models.resolve import resolve_stages
from mmse.models.settings import AttentionSettings, describe
from mmse.utils.errors import UserError

Stages = list[list[AttentionSettings | None]]


def our_backbones(model: Any) -> Iterator[tuple[Any, type[SEResNet]]]:
    """Every dict of a model that builds one of our backbones, and the class that it builds."""
    for _, node in walk({'model': model}):
        if isinstance(node, Mapping) and (kind := class_of(node)) and issubclass(kind, SEResNet):
            yield node, kind


def class_of(node: Mapping[str, Any]) -> type[Any] | None:
    """The class that a dict of a model builds; None if it builds none."""
    kind = node.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return kind if inspect.isclass(kind) else None


def resolved_attention(cfg: Config) -> list[Stages]:
    """The attention of every block of every stage of each of our backbones.

    Raises:
        UserError: A backbone has a depth that there is not, or its attention is not valid.
    """
    backbones = []
    for node, kind in our_backbones(cfg.model):
        settings, depth = kind.arch_settings, node.get('depth')
        if depth not in settings:
            raise UserError(f'depth of a backbone: {depth!r} given; allowed: {list(settings)}')
        with warnings.catch_warnings():
            # A factorial grid makes keys without effect, such as the fusion of one squeeze.
            warnings.simplefilter('ignore')
            blocks = settings[depth][1][: node.get('num_stages', 4)]
            backbones.append(resolve_stages(node.get('attention'), blocks))
    return backbones


def attention_in_words(cfg: Config) -> str:
    """The resolved attention of our backbones in a config: one phrase if all blocks agree."""
    return '; '.join(map(_in_words, resolved_attention(cfg)))


def _in_words(stages: Stages) -> str:
    texts = [[describe(block) for block in blocks] for blocks in stages]
    if len({text for blocks in texts for text in blocks}) == 1:
        return texts[0][0]
    lines = []
    for i, blocks in enumerate(texts):
        runs = [f'{len(list(run))} x {text}' for text, run in groupby(blocks)]
        lines.append(f'layer{i + 1}: ' + ', then '.join(runs))
    return '; '.join(lines)
