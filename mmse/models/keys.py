"""The names of a ResNet's tensors, taken apart.

======================================= ================== ================= ================
key                                     block        module            tensor
======================================= ================== ================= ================
``conv1.weight``                                     ``conv1``         ``weight``
``layer2.0.bn3.running_mean``           ``layer2.0`` ``bn3``           ``running_mean``
``layer2.0.downsample.0.weight``        ``layer2.0`` ``downsample.0``  ``weight``
``layer2.0.attention.fc1.bias``         ``layer2.0`` ``attention.fc1`` ``bias``
``layer2.0.attention.alpha``            ``layer2.0`` ``attention``     ``alpha``
``layer2.0.attention._extra_state``     ``layer2.0`` ``attention``     ``_extra_state``
======================================= ================== ================= ================
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_KEY = re.compile(r'(?:(layer\d\.\d+)\.)?(?:(.+)\.)?([^.]+)')
# torch's name for what a module saves beside its parameters and buffers: an attention its settings.
RECORD = '_extra_state'
_PLAIN_TENSORS = ('weight', 'bias', 'running_mean', 'running_var')


class Key(NamedTuple):
    """A key in its parts; ``str()`` puts it together again.

    Args:
        block: The residual block; empty outside of the stages.
        module: The module in the block, or in the network; empty for a tensor of the block itself.
        tensor: The parameter or buffer of the module.
    """

    block: str
    module: str
    tensor: str

    def __str__(self) -> str:
        return '.'.join(part for part in self if part)

    @property
    def attention(self) -> str | None:
        """The key within the block's attention, such as ``fc1.bias``; None outside of it."""
        if self.module.partition('.')[0] != 'attention':
            return None
        return f'{self.module}.{self.tensor}'.partition('.')[2]

    @property
    def is_record(self) -> bool:
        """Whether it holds the settings of an attention, of whatever block."""
        return self.tensor == RECORD

    @property
    def in_plain_resnet(self) -> bool:
        """Whether it is a tensor that every plain ResNet of this form has."""
        known = r'[a-z]+\d|downsample\.\d' if self.block else r'[a-z]+\d|stem\.\d'
        return bool(re.fullmatch(known, self.module)) and self.tensor in _PLAIN_TENSORS

    @property
    def in_backbone(self) -> bool:
        """Whether it belongs to a backbone, of whatever package."""
        return bool(self.block or re.match(r'([a-z]+1|stem\.\d+)(\.|$)', self.module))

    def is_norm(self, index: int) -> bool:
        """Whether it belongs to the norm after convolution ``index`` (bn3, gn3, ...)."""
        return bool(re.fullmatch(rf'(?!conv)[a-z]+{index}', self.module))


def parse(key: str) -> Key:
    """Take a key apart.

    Args:
        key: The name of a tensor in a state dict, without a prefix such as ``backbone.``.
    """
    match = _KEY.fullmatch(key)
    return Key(*match.groups(default='')) if match else Key('', '', key)


def blocks_of(keys: Iterable[str]) -> list[str]:
    """The residual blocks that keys belong to, in the order of the network."""
    names = {block for key in keys if (block := parse(key).block)}
    return sorted(names, key=lambda name: (int(name[5]), int(name.partition('.')[2])))


def stage_depths(blocks: Iterable[str]) -> list[int]:
    """How many blocks each stage has, from the blocks' names."""
    stages = [block.partition('.')[0] for block in blocks]
    return [stages.count(stage) for stage in dict.fromkeys(stages)]
