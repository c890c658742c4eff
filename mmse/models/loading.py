"""Fitting a checkpoint's ResNet weights to a backbone with attention, when they are loaded.

Keys of other layouts are renamed (``mmse.models.layouts``). Attention that is in the backbone
but not in the checkpoint starts at the identity: with fc2 at zero the gate is 1/2 whatever the
input, so the branch is scaled by a known gain (1/2, or 1 + alpha / 2 with residual gating).
Dividing the weight and the bias of the branch's last norm by that gain restores the function of the
plain network. Weights of an attention that means something else are refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmse.models.keys import RECORD, parse
from mmse.models.layouts import to_mmse
from mmse.models.load_report import LoadReport
from mmse.models.meaning import CLASSIC, check_meaning, same_parameters, split_records
from mmse.models.residual import ResidualBlock
from mmse.models.shapes import check_tensor, keeps_its_stem
from mmse.utils.errors import UserError

Recorded = Mapping[str, Mapping[str, Any]]


class Backbone(Protocol):
    """What of an SEResNet the weights are fitted to."""

    res_layers: list[str]
    preserve_pretrained: bool
    restart_attention: bool

    def state_dict(self) -> dict[str, Tensor]:
        """As of a module."""

    def attention_blocks(self) -> Iterator[tuple[str, ResidualBlock]]:
        """Name and module of each block that has attention."""


def match(
    backbone: Backbone, weights: Mapping[str, Tensor], trained: Recorded | None = None
) -> tuple[dict[str, Tensor], LoadReport]:
    """Find out what a checkpoint's weights are to a backbone.

    Args:
        backbone: An SEResNet; it is only read.
        weights: Weights of a backbone, all or some, of any layout.
        trained: The settings of each block's attention in the training that wrote the weights, by
            the block's name, for weights without a record; None if they are not known.

    Returns:
        The weights under our names, and what loading them will do.

    Raises:
        UserError: A weight has another shape or is not finite, the weights are of another
            attention, or the identity start does not exist (gain 0); it names the first such key.
    """
    layout, given = _renamed(weights)
    recorded = split_records(given)[1]
    own = backbone.state_dict()
    report = LoadReport(layout)
    attended = {parse(k).block for k in given if parse(k).attention not in (None, RECORD)}
    for name, block in backbone.attention_blocks():
        meant = recorded.get(name) or (trained or {}).get(name)
        if layout in ('timm', 'mmpretrain'):
            meant = CLASSIC
        if name not in attended:
            continue
        if meant is None:
            report.unrecorded.append(name)
        if problem := _other_meaning(name, block, given, meant):
            if not backbone.restart_attention:
                raise UserError(problem)
            report.left_out.append(problem)
            for key in [k for k in given if k.startswith(f'{name}.attention.')]:
                del given[key]
            attended.discard(name)
    for key in [key for key in given if key in own and not parse(key).is_record]:
        if note := keeps_its_stem(key, given[key], own[key]):
            report.left_out.append(note)
            del given[key]
            continue
        check_tensor(key, given[key], own[key])
    for name, block in backbone.attention_blocks() if backbone.preserve_pretrained else ():
        branch = (f'{name}.conv{block.last}.weight', f'{name}.{block.last_norm_name}.weight')
        if name not in attended and all(key in given for key in branch):
            if block.identity_gain == 0:
                raise UserError(
                    f'{name}.attention: alpha=-2 makes the gain 1 + alpha / 2 zero, from which '
                    'pretrained weights cannot be kept; use another alpha, or '
                    'preserve_pretrained=False'
                )
            report.identity.append(name)
    tensors = [key for key in own if not parse(key).is_record]
    report.loaded = [key for key in tensors if key in given]
    report.new = [k for k in tensors if k not in given and not k.endswith('num_batches_tracked')]
    report.unused = sorted(
        (key for key in given if key not in own), key=lambda key: parse(key).is_record
    )
    return given, report


def start_at_identity(backbone: Backbone, given: dict[str, Tensor], report: LoadReport) -> None:
    """Start the attention of ``report.identity`` such that it changes nothing.

    Args:
        backbone: The backbone; fc2 of these blocks becomes zero.
        given: What ``match`` gave; the last norms of these blocks are divided by the gain.
        report: What ``match`` said.
    """
    own = backbone.state_dict()
    for name, block in backbone.attention_blocks():
        attention = block.channel_attention
        if name not in report.identity or attention is None:
            continue
        for kind in ('weight', 'bias'):
            norm = f'{name}.{block.last_norm_name}.{kind}'
            if norm in given:
                # In the backbone's precision: half precision would round the quotient.
                given[norm] = given[norm].to(own[norm].dtype) / block.identity_gain
        device = given[f'{name}.{block.last_norm_name}.weight'].device
        for key, value in list(attention.fc2.named_parameters()):
            if value.is_meta:
                zeros = torch.zeros(value.shape, dtype=value.dtype, device=device)
                setattr(attention.fc2, key, nn.Parameter(zeros, value.requires_grad))
            else:
                nn.init.zeros_(value)
        attention.random_start = False


def check_whole(backbone: Backbone, given: Mapping[str, Tensor], report: LoadReport) -> None:
    """Refuse weights that are not those of a whole ResNet of the backbone's form.

    Args:
        backbone: An SEResNet; it is only read.
        given: What ``match`` gave.
        report: What ``match`` said.

    Raises:
        UserError: A weight is missing or of another network.
    """
    own = backbone.state_dict()
    modules = {key.rpartition('.')[0] for key in own}
    for key in report.new:
        if parse(key).in_plain_resnet and not any(note.startswith(key) for note in report.left_out):
            raise UserError(f'the weights have no {key}{_why_missing(key, given)}')
    stages = tuple(f'{stage}.' for stage in backbone.res_layers)
    statistics = ('num_batches_tracked', 'running_mean', 'running_var')
    for key in report.unused:
        if not key.startswith(('stem.', *stages)):
            continue
        if parse(key).tensor in statistics and key.rpartition('.')[0] in modules:
            continue  # of a norm that keeps none
        raise UserError(f'the backbone has no {key}{_why_unexpected(key)}')


def _renamed(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    if any(key.startswith('backbone.') for key in weights):
        prefix = len('backbone.')
        weights = {k[prefix:]: v for k, v in weights.items() if k.startswith('backbone.')}
    return to_mmse(weights)


def _other_meaning(
    name: str, block: ResidualBlock, given: Mapping[str, Tensor], meant: Mapping[str, Any] | None
) -> str | None:
    """Why the weights of a block's attention mean another function; None if nothing shows it."""
    attention = block.channel_attention
    assert attention is not None
    prefix = f'{name}.attention.'
    try:
        if meant is not None:
            check_meaning(attention.settings, meant, f'{name}.attention')
        there = {key[len(prefix) :] for key in given if key.startswith(prefix)} - {RECORD}
        same_parameters(attention, there, prefix)
    except UserError as error:
        return str(error)
    return None


_REMEDY = '; set depth and widths of the backbone to those of the weights, or use other weights'


def _why_missing(key: str, given: Mapping[str, Tensor]) -> str:
    """The end of the sentence about a weight that a checkpoint lacks."""
    if parse(key).tensor.startswith('running_') and key.rpartition('.')[0] + '.weight' in given:
        return (
            ': their norms keep no running statistics (frozen or folded norms, such as those of '
            'caffe); use weights that have them'
        )
    if key.startswith(('conv1.', 'bn1.')) and any(k.startswith('stem.') for k in given):
        return ': they are of a ResNet with a deep stem (SEResNetV1c or SEResNetV1d)'
    if key.startswith('stem.') and 'conv1.weight' in given:
        return ': they are of a ResNet with a plain stem (SEResNet)'
    return _REMEDY


def _why_unexpected(key: str) -> str:
    if parse(key).attention is not None:
        return '; give this block attention in the config, or use weights without attention'
    return _REMEDY
