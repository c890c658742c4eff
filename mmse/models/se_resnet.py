"""SEResNet: the ResNet family of mmdet and mmseg with channel attention set in the config."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmse.models.arguments import check_recompute, check_stages, starting_weights
from mmse.models.blocks import SEBasicBlock, SEBottleneck
from mmse.models.layer_depth import layer_depth
from mmse.models.residual import Settings
from mmse.models.resolve import resolve_stages
from mmse.models.staged import StagedBackbone
from mmse.models.stages import Block, deep_stem_layers, make_stages
from mmse.models.summary import attention_lines, log_attention
from mmse.registry import MODELS
from mmse.utils.errors import UserError


@MODELS.register_module()
class SEResNet(StagedBackbone):
    """ResNet and ResNeXt with channel attention at the end of each residual branch.

    Takes what the ResNet families of mmdet and mmseg take, under the same parameter names, so their
    checkpoints load; with ``attention=None`` the outputs equal theirs to the bit.

    Args:
        depth: 18, 34, 50, 101 or 152.
        attention: What each block gets: None, a preset's name, a dict of the settings of
            ``mmse.models.AttentionSettings``, or a list with one such entry per stage, in which
            a stage's entry may be a list with one entry per block.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem; None takes ``base_channels``.
        base_channels: Channels of the first stage, before the expansion.
        num_stages: Stages that are built, 1 to 4.
        strides: Stride of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages whose outputs are returned.
        style: ``'pytorch'`` strides in the 3x3 convolution, ``'caffe'`` in the first 1x1.
        deep_stem: Three 3x3 convolutions in the stem instead of one 7x7 (ResNet-C).
        avg_down: Average pooling before a 1x1 convolution of stride 1 in strided shortcuts
            (ResNet-D).
        frozen_stages: Freezes the stem and this many stages whole, attention included, in eval
            mode; -1 freezes nothing, 0 the stem.
        train_frozen_attention: Train the attention in frozen stages all the same. The backward pass
            then runs through the frozen stages, which freezing otherwise saves.
        preserve_pretrained: When a checkpoint without attention is loaded, start the attention so
            that the network computes exactly what the plain one does.
        restart_attention: Where a checkpoint's attention has other settings than the backbone's,
            start it at the identity, with a warning, instead of refusing the checkpoint.
        drop_path_rate: Stochastic depth: the probability that a sample skips the last block's
            branch in training; earlier blocks have proportionally less.
        fused: Compute the last norm, attention, addition and relu of a block as one function, which
            keeps no more for the backward pass than a ResNet without attention. Blocks that this
            does not cover compose the modules instead; printing the backbone shows which. False
            composes the modules everywhere, for instance for second derivatives. ``'kernels'``
            computes it by Triton kernels on GPUs, and as with True elsewhere.
        channels_last: Compute in channels_last memory format, whatever the format of the images.
            Not together with dcn, which MMCV computes wrongly in that format.
        compile: Compile the forward pass with ``torch.compile``: True for one compilation that
            serves images of any size, or a dict of ``torch.compile``'s arguments. The names of
            the parameters stay.
        conv_cfg: MMCV's convolution config.
        norm_cfg: MMCV's norm config.
        norm_eval: Keep batch norms in eval mode while training. True as in mmdet; mmseg's default
            is False.
        dcn: MMCV's deformable convolution for the stages of ``stage_with_dcn``.
        stage_with_dcn: Whether each stage has deformable convolutions.
        plugins: MMCV plugins, each with ``cfg``, ``position`` and, optionally, ``stages``.
        multi_grid: Dilation of each block of the last stage (mmseg).
        contract_dilation: Halve the dilation of a stage's first block (mmseg).
        with_cp: Recompute the blocks in the backward pass to save memory.
        recompute: ``'norms'`` keeps only the outputs of convolutions and blocks for the backward
            pass, ``'expand'`` not even that of a block's last convolution; what is missing is
            computed again. With both a block keeps less than in a plain ResNet, with and without
            attention. Blocks whose modules have hooks keep everything.
        zero_init_residual: Start the last norm of each branch at zero.
        groups: Groups of the 3x3 convolutions (ResNeXt).
        base_width: Width of a group in the first stage (ResNeXt).
        pretrained: Deprecated; use ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: MMEngine's initialisation config.

    Raises:
        UserError: (a ValueError) for a wrong argument; it names the place and what is allowed.
    """

    arch_settings: ClassVar[dict[int, tuple[Block, tuple[int, ...]]]] = {
        18: (SEBasicBlock, (2, 2, 2, 2)),
        34: (SEBasicBlock, (3, 4, 6, 3)),
        50: (SEBottleneck, (3, 4, 6, 3)),
        101: (SEBottleneck, (3, 4, 23, 3)),
        152: (SEBottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: Settings | None = None,
        norm_cfg: Settings = {'type': 'BN', 'requires_grad': True},  # noqa: B006
        norm_eval: bool = True,
        dcn: Settings | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: Sequence[Settings] | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        groups: int = 1,
        base_width: int = 4,
        pretrained: str | None = None,
        init_cfg: Any = None,
        *,
        attention: Any = None,
        train_frozen_attention: bool = False,
        preserve_pretrained: bool = True,
        restart_attention: bool = False,
        drop_path_rate: float = 0.0,
        fused: bool | str = True,
        recompute: str | None = None,
        channels_last: bool = False,
        compile: bool | Settings = False,
    ) -> None:
        name = type(self).__name__
        if depth not in self.arch_settings:
            allowed = ', '.join(map(str, self.arch_settings))
            raise UserError(f'{name}.depth: {depth!r} given; allowed: {allowed}')
        check_stages(
            name,
            num_stages,
            out_indices,
            strides=strides,
            dilations=dilations,
            **({} if dcn is None else {'stage_with_dcn': stage_with_dcn}),
        )
        if channels_last and dcn is not None:
            # MMCV's kernels of deformable convolution take a map's memory as contiguous, silently.
            raise UserError(f'{name}: channels_last and dcn given; allowed: one of them')
        if fused not in (True, False, 'kernels'):
            raise UserError(f"{name}.fused: {fused!r} given; allowed: True, False, 'kernels'")
        check_recompute(
            name,
            recompute,
            norm_cfg,
            with_cp=with_cp,
            dcn=dcn,
            plugins=plugins,
            compile=compile,
            conv_cfg=conv_cfg,
            drop_path_rate=drop_path_rate,
            unfused=not fused,
        )
        self.block, stage_blocks = self.arch_settings[depth]
        init_cfg, block_init_cfg = starting_weights(
            name, self.block.last, init_cfg, pretrained, zero_init_residual
        )
        super().__init__(
            init_cfg,
            preserve_pretrained=preserve_pretrained,
            restart_attention=restart_attention,
        )

        self.depth, self.num_stages, self.style = depth, num_stages, style
        self.stem_channels = stem_channels = stem_channels or base_channels
        self.base_channels, self.strides, self.dilations = base_channels, strides, dilations
        self.deep_stem, self.avg_down, self.with_cp = deep_stem, avg_down, with_cp
        self.conv_cfg, self.norm_cfg, self.dcn, self.plugins = conv_cfg, norm_cfg, dcn, plugins
        self.stage_with_dcn, self.zero_init_residual = stage_with_dcn, zero_init_residual
        self.drop_path_rate = drop_path_rate
        self.frozen_stages = frozen_stages
        self.train_frozen_attention = train_frozen_attention
        self.norm_eval = norm_eval
        self.out_indices = out_indices
        self.stage_blocks = stage_blocks[:num_stages]
        self.stage_attention = resolve_stages(attention, self.stage_blocks)
        self._reported = False

        if deep_stem:
            self.stem = deep_stem_layers(in_channels, stem_channels, conv_cfg, norm_cfg)
        else:
            self.conv1 = build_conv_layer(
                conv_cfg, in_channels, stem_channels, 7, stride=2, padding=3, bias=False
            )
            self.norm1_name, norm1 = build_norm_layer(norm_cfg, stem_channels, postfix=1)
            self.add_module(self.norm1_name, norm1)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        widths = {'groups': groups, 'base_width': base_width, 'base_channels': base_channels}
        stages = make_stages(
            self.block,
            self.stage_attention,
            inplanes=stem_channels,
            base_channels=base_channels,
            strides=strides,
            dilations=dilations,
            contract_dilation=contract_dilation,
            multi_grid=multi_grid,
            dcn=dcn,
            stage_with_dcn=stage_with_dcn,
            plugins=plugins,
            style=style,
            avg_down=avg_down,
            with_cp=with_cp,
            fused=fused,
            recompute=recompute,
            drop_path_rate=drop_path_rate,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            init_cfg=block_init_cfg,
            block_args=widths if self.block is SEBottleneck else {},
        )
        self.res_layers = [f'layer{i + 1}' for i in range(num_stages)]
        for layer, stage in zip(self.res_layers, stages, strict=True):
            self.add_module(layer, stage)
        self.feat_dim = base_channels * 2 ** (num_stages - 1) * self.block.expansion
        self._freeze_stages()
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        if compile is not False:
            self.compile(**({'dynamic': True} if compile is True else compile))

    @property
    def norm1(self) -> nn.Module:
        """Norm of the plain stem."""
        norm: nn.Module = getattr(self, self.norm1_name)
        return norm

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """The layer of a parameter, and how many there are; see ``mmse.models.layer_depth``."""
        return layer_depth(param_name, prefix, self.arch_settings[self.depth][1])

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen += [self.stem] if self.deep_stem else [self.conv1, self.norm1]
        frozen += [getattr(self, name) for name in self.frozen_layers]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        if self.train_frozen_attention:
            for name, block in self.attention_blocks():
                if block.channel_attention and name.partition('.')[0] in self.frozen_layers:
                    block.channel_attention.requires_grad_(True)

    @property
    def frozen_layers(self) -> list[str]:
        """Names of the stages that ``frozen_stages`` freezes."""
        return self.res_layers[: max(self.frozen_stages, 0)]

    def extra_repr(self) -> str:
        return f'depth={self.depth}\n{attention_lines(self.stages)}'

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages of ``out_indices``; the first has stride 4.

        They are contiguous (NCHW), whatever format the network computes in.

        Args:
            x: Images, (B, in_channels, H, W).
        """
        if self.channels_last:
            x = x.to(memory_format=torch.channels_last)
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                # MMCV's kernels in heads, RoIAlign first, take its memory as contiguous, silently.
                outs.append(x.contiguous() if self.channels_last else x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'SEResNet':
        """Set the mode, but keep frozen stages and, with norm_eval, batch norms in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        if mode and not self._reported:
            self._reported = True
            trained = self.train_frozen_attention
            log_attention(type(self).__name__, self.stages, self.frozen_layers, trained)
        return self
