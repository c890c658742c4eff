"""Whether a checkpoint belongs to a model, and which one a run goes on from."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from mmengine.logging import print_log
from torch import Tensor, nn

from mmse.errors import UserError
from mmse.models import SEResNet
from mmse.weights.adapt import adapt
from mmse.weights.safe_load import read_checkpoint, state_dict_of


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint that a run in ``work_dir`` goes on from; None if there is no whole one.

    MMEngine names the checkpoint that it saved last in the file ``last_checkpoint``, by the path
    that it had then. A kill while it saves can leave that file empty. It can also leave the
    checkpoint removed (``max_keep_ckpts`` is 1) or cut off (``save_best`` saves it again). Then the
    newest whole one in the folder takes its place, with a warning.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    if named := pointer.read_text().strip():
        # Beside it first: the folder may have been moved. Elsewhere with CheckpointHook's out_dir.
        for path in (pointer.with_name(Path(named).name), Path(named)):
            if _is_whole(path):
                return str(path)
    saved = [p for pattern in ('iter_*.pth', 'epoch_*.pth') for p in pointer.parent.glob(pattern)]
    newest = max(filter(_is_whole, saved), key=lambda path: path.stat().st_mtime, default=None)
    print_log(
        f'{pointer} names {named or "no checkpoint"}, which is missing or cut off; '
        + (f'going on from {newest}' if newest else 'there is no whole checkpoint to go on from'),
        'current',
        logging.WARNING,
    )
    return str(newest) if newest else None


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is not cut off: torch's files end with the directory of a zip file.

    One of DeepSpeed is a folder.
    """
    return path.is_dir() or is_zipfile(path)


def check_checkpoint(path: str, model: nn.Module, whole: bool) -> None:
    """Refuse a checkpoint whose weights do not belong to the model.

    Args:
        path: The checkpoint file.
        model: The model that will load it.
        whole: Every weight must fit, as for resuming and testing; otherwise only those of the
            backbone, whose attention may be new.

    Raises:
        UserError: It names the file, the first key that does not fit, and what to do.
    """
    theirs = state_dict_of(read_checkpoint(path))
    problem = _first_misfit(theirs, model.state_dict()) if whole else _misfit(theirs, model)
    if problem:
        raise UserError(
            f'{path} does not belong to this model: {problem}; '
            'use the config that it was trained with, or another checkpoint'
        )


def _misfit(theirs: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """What of the backbone does not fit; heads may, as in MMEngine."""
    prefix = 'backbone.'
    weights = {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}
    if not weights:
        return 'it has no backbone.* (a bare backbone is what model.backbone.init_cfg loads)'
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, SEResNet):
        try:
            adapt(backbone, weights, backbone.preserve_pretrained)
        except UserError as error:
            return f'{error}{_compare_depths(weights, backbone.state_dict())}'
        return None
    return _first_misfit(weights, backbone.state_dict()) if backbone is not None else None


def check_pretrained(model: nn.Module) -> None:
    """Refuse a file that the backbone's ``init_cfg`` names and that does not belong to it.

    Raises:
        UserError: It names the file and the first key that does not fit.
    """
    backbone = getattr(model, 'backbone', None)
    cfgs = getattr(backbone, 'init_cfg', None) or []
    for cfg in cfgs if isinstance(cfgs, list) else [cfgs]:
        path = cfg.get('checkpoint', '://')
        if '://' not in path and isinstance(backbone, SEResNet):
            weights = state_dict_of(read_checkpoint(path))
            if prefix := cfg.get('prefix', ''):
                prefix = prefix.rstrip('.') + '.'
                weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
            try:
                adapt(backbone, weights, backbone.preserve_pretrained)
            except UserError as error:
                raise UserError(f'{path}, which model.backbone.init_cfg names: {error}') from error


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
    depths = [_stage_blocks(weights) for weights in (theirs, ours)]
    if depths[0] == depths[1] or not all(depths):
        return ''
    return f' (its stages have {depths[0]} blocks, those of the config {depths[1]})'


def _stage_blocks(weights: Mapping[str, Any]) -> str:
    blocks: dict[int, int] = {}
    for key in weights:
        if match := re.match(r'(?:backbone\.)?layer(\d)\.(\d+)\.', key):
            stage, block = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    return ', '.join(str(blocks[stage]) for stage in sorted(blocks))
