"""Base of the backbones: their stages and blocks, and the weights that are loaded into them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn

from mmse.models.loading import check_whole, match, start_at_identity
from mmse.models.residual import ResidualBlock
from mmse.utils.errors import UserError


class StagedBackbone(BaseModule):
    """A backbone of residual stages that takes the checkpoints of plain ResNets.

    A subclass makes the stages.

    Args:
        init_cfg: MMEngine's initialisation config.
        preserve_pretrained: See ``SEResNet``.
        restart_attention: See ``SEResNet``.
    """

    res_layers: list[str]

    def __init__(
        self, init_cfg: Any, *, preserve_pretrained: bool, restart_attention: bool
    ) -> None:
        super().__init__(init_cfg)
        self.preserve_pretrained = preserve_pretrained
        self.restart_attention = restart_attention
        self._needs_whole = False

    def attention_blocks(self) -> Iterator[tuple[str, ResidualBlock]]:
        """Name, such as ``layer2.0``, and module of every block that has attention of mmse."""
        for stage, blocks in self.stages.items():
            for index, block in enumerate(blocks):
                if isinstance(block, ResidualBlock) and block.channel_attention is not None:
                    yield f'{stage}.{index}', block

    @property
    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """The modules of each stage; one that was replaced by something else has none."""
        stages = {name: getattr(self, name) for name in self.res_layers}
        return {
            name: list(stage) if isinstance(stage, nn.Sequential) else []
            for name, stage in stages.items()
        }

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        # Both torch's and MMEngine's loaders come through here, before the children's weights.
        weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        if weights:
            given, report = match(self, weights)
            if self._needs_whole:
                check_whole(self, given, report)
            start_at_identity(self, given, report)
            for key in weights:
                del state_dict[prefix + key]
            state_dict.update({prefix + key: value for key, value in given.items()})
            print_log(report.table(), 'current')
            print_log(report.names(), 'current', level=logging.DEBUG)
            for note in report.left_out:
                print_log(note, 'current', level=logging.WARNING)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def init_weights(self) -> None:
        """As in MMEngine; a checkpoint that does not fit is refused by its name."""
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        files = [cfg['checkpoint'] for cfg in cfgs if cfg and 'checkpoint' in cfg]
        self._needs_whole = True
        try:
            super().init_weights()
        except UserError as error:
            if any(file in str(error) for file in files):
                raise
            raise UserError(f'{", ".join(files)}: {error}') from error
        finally:
            self._needs_whole = False
