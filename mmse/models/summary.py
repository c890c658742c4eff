"""What a backbone says of its attention: when it is printed, and when its training begins."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from mmengine.logging import print_log
from torch import nn

from mmse.models.residual import ResidualBlock
from mmse.models.settings import describe

Stages = Mapping[str, Iterable[nn.Module]]


def attention_lines(stages: Stages) -> str:
    """One line per stage: its blocks' attention in words, and the path of their tails.

    Args:
        stages: The blocks of each stage.
    """
    lines = []
    for name, blocks in stages.items():
        words = [_in_words(block) for block in blocks]
        runs = [(text, len(list(run))) for text, run in groupby(words)]
        lines.append(f'{name}: ' + '; '.join(f'{count} x {text}' for text, count in runs))
    return '\n'.join(lines)


def _in_words(block: nn.Module) -> str:
    if not isinstance(block, ResidualBlock):
        return type(block).__name__
    if block.attention is None:
        recomputed = '' if block.recompute is None else f', recompute={block.recompute!r}'
        return describe(None) + recomputed
    known = block.channel_attention
    return f'{describe(known.settings) if known else type(block.attention).__name__}, {block.path}'


def log_attention(owner: str, stages: Stages, frozen: Sequence[str], trained: bool) -> None:
    """Log the attention of each stage, and what freezing does to it.

    Args:
        owner: The backbone's class.
        stages: The blocks of each stage.
        frozen: Names of the frozen stages.
        trained: Whether the attention in frozen stages is trained all the same.
    """
    print_log(f'Attention of {owner}\n{attention_lines(stages)}', 'current')
    attention = {
        name: [
            block.channel_attention
            for block in stages[name]
            if isinstance(block, ResidualBlock) and block.channel_attention is not None
        ]
        for name in frozen
    }
    attention = {name: modules for name, modules in attention.items() if modules}
    if not attention or trained:
        return
    print_log(
        f'frozen_stages={len(frozen)} freezes the attention of {", ".join(attention)}', 'current'
    )
    harmed = [name for name, found in attention.items() if any(m.random_start for m in found)]
    if harmed:
        print_log(
            f'The attention of {", ".join(harmed)} is frozen at a random start: it scales the '
            'residual branches by untrained gates for the whole run. Either set '
            'train_frozen_attention=True, or give these stages no attention '
            '(attention=[None, ...]) or a lower frozen_stages.',
            'current',
            level=logging.WARNING,
        )
