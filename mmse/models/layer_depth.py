"""Layers of a ResNet for layer-wise learning rate decay, as mmpretrain counts them.

The stem is layer 0 and the first stage layer 1. The second and third stage have a layer for every
few blocks, the fourth is one layer again, and the head comes last. Stages that are not built count.
"""

import math
from collections.abc import Sequence


def layer_depth(name: str, prefix: str, stage_blocks: Sequence[int]) -> tuple[int, int]:
    """The layer of a model's parameter, and the number of layers.

    Args:
        name: The parameter.
        prefix: How the names of the backbone's parameters begin.
        stage_blocks: Number of blocks of each of the four stages.
    """
    layers = _layers(stage_blocks)
    number = sum(layers) + 2
    if not name.startswith(prefix):
        return number - 1, number
    stage, _, rest = name.removeprefix(prefix).partition('.')
    if not stage.startswith('layer'):
        return 0, number
    index = int(stage.removeprefix('layer')) - 1
    block = int(rest.partition('.')[0])
    return 1 + sum(layers[:index]) + block // _blocks_per_layer(index, stage_blocks), number


def _layers(stage_blocks: Sequence[int]) -> list[int]:
    return [math.ceil(n / _blocks_per_layer(i, stage_blocks)) for i, n in enumerate(stage_blocks)]


def _blocks_per_layer(stage: int, stage_blocks: Sequence[int]) -> int:
    if stage in (0, 3):
        return stage_blocks[stage]
    return 4 if stage_blocks[1] > 4 else stage + 1  # more than 4: ResNet-152
