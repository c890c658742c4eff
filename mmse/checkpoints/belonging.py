"""Whether a checkpoint belongs to a model."""

from collections.abc import Mapping

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmse.checkpoints.safe_load import read_checkpoint, state_dict_of
from mmse.models import SEResNet
from mmse.models.keys import blocks_of, stage_depths
from mmse.models.loading import check_fit
from mmse.utils.errors import UserError


def check_checkpoint(path: str, model: nn.Module, whole: bool) -> None:
    """Refuse a checkpoint whose weights do not belong to the model.

    What was read is kept for MMEngine, which loads it next.

    Args:
        path: The checkpoint file.
        model: The model that will load it.
        whole: Every weight must fit, as for resuming and testing; otherwise only those of the
            backbone, whose attention may be new.

    Raises:
        UserError: It names the file, the first key that does not fit, and what to do.
    """
    theirs = state_dict_of(read_checkpoint(path, keep=True))
    misfit = _first_misfit(theirs, model.state_dict()) if whole else _backbone_misfit(theirs, model)
    if misfit:
        raise UserError(
            f'{path} does not belong to this model: {misfit}; '
            'use the config that it was trained with, or another checkpoint'
        )


def check_pretrained(model: nn.Module) -> None:
    """Refuse a checkpoint in the backbone's ``init_cfg`` whose weights do not fit the backbone.

    Raises:
        UserError: It names the file and the first key that does not fit.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, SEResNet):
        return
    cfgs: list[ConfigDict] | ConfigDict = backbone.init_cfg or []
    for cfg in cfgs if isinstance(cfgs, list) else [cfgs]:
        path = cfg.get('checkpoint', '://')
        if '://' in path:
            continue
        weights = state_dict_of(read_checkpoint(path, keep=True))
        if prefix := cfg.get('prefix', ''):
            weights = _below(prefix.rstrip('.') + '.', weights)
        try:
            check_fit(backbone, weights, backbone.preserve_pretrained)
        except UserError as error:
            raise UserError(f'{path}, which model.backbone.init_cfg names: {error}') from error


def _backbone_misfit(theirs: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """What of the backbone does not fit; heads may, as in MMEngine."""
    weights = _below('backbone.', theirs)
    if not weights:
        return 'it has no backbone.* (a bare backbone is what model.backbone.init_cfg loads)'
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, SEResNet):
        try:
            check_fit(backbone, weights, backbone.preserve_pretrained)
        except UserError as error:
            return f'{error}{_compare_depths(weights, backbone.state_dict())}'
        return None
    return _first_misfit(weights, backbone.state_dict()) if backbone is not None else None


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: v for key, v in weights.items() if key.startswith(prefix)}


def _first_misfit(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str | None:
    depths = _compare_depths(theirs, ours)
    for key, value in ours.items():
        if key not in theirs:
            return f'it has no {key}{depths}'
        if theirs[key].shape != value.shape:
            shapes = tuple(theirs[key].shape), tuple(value.shape)
            return f'{key} is {shapes[0]} in it and {shapes[1]} in the model{depths}'
    extra = [key for key in theirs if key not in ours]
    return f'the model has no {extra[0]}{depths}' if extra else None


def _compare_depths(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    depths = [
        ', '.join(map(str, stage_depths(blocks_of(k.removeprefix('backbone.') for k in weights))))
        for weights in (theirs, ours)
    ]
    if depths[0] == depths[1] or not all(depths):
        return ''
    return f' (its stages have {depths[0]} blocks, those of the config {depths[1]})'
