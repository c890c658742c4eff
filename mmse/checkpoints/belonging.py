"""Whether a checkpoint belongs to a model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmse.checkpoints.recorded import recorded_blocks
from mmse.checkpoints.safe_load import read_checkpoint, state_dict_of
from mmse.models import SEResNet
from mmse.models.keys import blocks_of, parse, stage_depths
from mmse.models.loading import check_whole, match
from mmse.utils.errors import UserError
from mmse.utils.text import name_some


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
    checkpoint = read_checkpoint(path, keep=True)
    theirs = state_dict_of(checkpoint)
    misfit = _first_misfit(theirs, model.state_dict()) if whole else None
    misfit = misfit or _backbone_misfit(checkpoint, theirs, model)
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
    for name, backbone in _backbones(model).items():
        cfgs: list[ConfigDict] | ConfigDict = backbone.init_cfg or []
        for cfg in cfgs if isinstance(cfgs, list) else [cfgs]:
            path = cfg.get('checkpoint', '://')
            if '://' in path:
                continue
            checkpoint = read_checkpoint(path, keep=True)
            prefix = f'{cfg["prefix"].rstrip(".")}.' if cfg.get('prefix') else ''
            weights = _below(prefix, state_dict_of(checkpoint))
            try:
                recorded = recorded_blocks(checkpoint, prefix, weights)
                check_whole(backbone, *match(backbone, weights, recorded))
            except UserError as error:
                raise UserError(f'{path}, which model.{name}.init_cfg names: {error}') from error


def recorded_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes that a checkpoint was trained on; None if it has none."""
    meta = checkpoint.get('meta') or {}
    described = meta.get('dataset_meta') or meta
    # mmdet 2 and mmseg 0 wrote CLASSES.
    classes = described.get('classes') or described.get('CLASSES')
    return None if classes is None or isinstance(classes, str) else tuple(map(str, classes))


def check_classes(path: str, classes: Sequence[str] | None, what: str) -> None:
    """Refuse a checkpoint that was trained on other classes, or on the same in another order.

    Args:
        path: The checkpoint file.
        classes: The class names of the data; None if they are not known.
        what: What the data are called, such as ``the test data``.

    Raises:
        UserError: It names the classes of both.
    """
    trained = recorded_classes(read_checkpoint(path, keep=True))
    if trained is None or classes is None or trained == tuple(classes):
        return
    order = ' in that order' if sorted(trained) == sorted(classes) else ''
    raise UserError(
        f'{path} was trained on the classes {name_some(trained, 30)}; {what} have '
        f'{name_some(classes, 30)}: give data with the same classes{order}'
    )


def _backbone_misfit(
    checkpoint: Mapping[str, Any], theirs: Mapping[str, Tensor], model: nn.Module
) -> str | None:
    """What of the backbones does not fit; heads may differ, as in MMEngine."""
    for name, backbone in _backbones(model).items():
        prefix = f'{name}.'
        of_branch = re.match(r'(student|teacher)\.', prefix)
        if of_branch and not any(key.startswith(prefix) for key in theirs):
            prefix = prefix[of_branch.end() :]  # mmdet gives a plain detector's to both
        if not (weights := _below(prefix, theirs)):
            return f'it has no {name}.* (a bare backbone is what model.{name}.init_cfg loads)'
        try:
            recorded = recorded_blocks(checkpoint, prefix, weights)
            check_whole(backbone, *match(backbone, weights, recorded))
        except UserError as error:
            return f'{error}{_compare_depths(weights, backbone.state_dict())}'
    plain = getattr(model, 'backbone', None)
    if plain is None or _backbones(model):
        return None
    weights = _below('backbone.', theirs)
    if not weights:
        return 'it has no backbone.* (a bare backbone is what model.backbone.init_cfg loads)'
    return _first_misfit(weights, plain.state_dict())


def _backbones(model: nn.Module) -> dict[str, SEResNet]:
    """Our backbones in a model, by their place in it."""
    return {name: m for name, m in model.named_modules() if name and isinstance(m, SEResNet)}


def _below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: v for key, v in weights.items() if key.startswith(prefix)}


def _first_misfit(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str | None:
    depths = _compare_depths(theirs, ours)
    for key, value in ours.items():
        if parse(key).is_record:
            continue  # what the attention means is compared when it is loaded
        if key.endswith('num_batches_tracked'):
            continue  # what was converted from elsewhere has none, and nothing hangs on it
        if key not in theirs:
            return f'it has no {key}{depths}'
        shapes = tuple(theirs[key].shape), tuple(value.shape)
        if '.attention.fc' in key and shapes[0] == (*shapes[1], 1, 1):
            continue  # as a 1x1 convolution, which loading turns into a layer
        if shapes[0] != shapes[1]:
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
