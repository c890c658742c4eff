"""What a swapped backbone must share with the original: function, gradients, initial weights."""

from typing import Any

import torch
from mmengine.model import BaseModule
from swapped_backbones import Pair, build
from torch import nn

from mmse.models import ChannelAttention

# Settings that change neither which layers there are nor how they are initialised.
SHAPE = ('depth', 'num_stages', 'out_indices', 'strides', 'dilations', 'multi_grid', 'norm_eval')
SHAPE += ('contract_dilation', 'frozen_stages', 'base_width')


def mismatch(original: dict[str, Any], swapped: dict[str, Any]) -> str | None:
    """Why a swapped backbone does not do what the original does; None if it does."""
    pair = Pair(original, swapped)
    if not pair.equal():
        return 'attention=None: the features differ from the original'
    return attention_mismatch(pair)


def attention_mismatch(pair: Pair) -> str | None:
    ours = build(
        pair.swapped,
        attention='sepp_v2_residual',
        train_frozen_attention=True,
        preserve_pretrained=False,  # at the identity start fc1 has no gradient yet
    )
    for module in ours.modules():
        if isinstance(module, ChannelAttention):
            for param in module.parameters():
                nn.init.normal_(param, std=0.2)
    missing, extra = ours.load_state_dict(pair.theirs.state_dict(), strict=False, assign=True)
    if extra or not all('.attention.' in name for name in missing):
        return f'of the weights {extra} do not fit and {missing} are missing'
    ours.train()
    outs = ours(pair.x)
    if [out.shape for out in outs] != [out.shape for out in pair.want]:
        return f'shapes {[tuple(out.shape) for out in outs]}'
    # What stands behind the last stage that is returned gets no gradient in any network.
    used = tuple(ours.res_layers[: max(ours.out_indices) + 1])
    new = {n: p for n, p in ours.named_parameters() if '.attention.' in n and n.startswith(used)}
    blocks = sum(len(getattr(ours, stage)) for stage in used)
    if len(new) != 6 * blocks:  # weight and bias of fc1 and fc2, fusion_logits, alpha
        return f'{len(new)} new parameters in {blocks} blocks'
    if frozen := [name for name, param in new.items() if not param.requires_grad]:
        return f'frozen: {frozen}'
    sum(out.square().sum() for out in outs).backward(inputs=list(new.values()))
    dead = [n for n, p in new.items() if not (p.grad.isfinite().all() and p.grad.any())]
    return f'no finite gradient other than zero: {dead}' if dead else None


def initial_mismatch(original: dict[str, Any], swapped: dict[str, Any]) -> str | None:
    """Why a training does not start from the same weights; None if it does.

    Where a checkpoint gives them, the initialisation of each module is compared instead.
    """
    nets = []
    for settings in (original, swapped):
        torch.manual_seed(0)
        nets.append(build(settings, as_given=True))
    if 'Pretrained' in str(original.get('init_cfg')):
        theirs, ours = (
            {n: m.init_cfg for n, m in net.named_modules() if n and isinstance(m, BaseModule)}
            for net in nets
        )
        return None if theirs == ours else 'beside the checkpoint modules start differently'
    for net in nets:
        torch.manual_seed(0)
        net.init_weights()
    theirs, ours = (net.state_dict() for net in nets)
    names = [name for name, value in theirs.items() if not torch.equal(value, ours[name])]
    return f'other initial weights: {names[:3]}' if names else None


def what_decides_the_start(original: dict[str, Any]) -> str:
    """The settings that choose layers and initial weights; shape and stride do not."""
    rest = {k: v for k, v in original.items() if k not in SHAPE}
    start = {'init_cfg': 'file'} if 'Pretrained' in str(rest) else {}
    return str({**rest, **start, 'bottlenecks': original['depth'] >= 50})
