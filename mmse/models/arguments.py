"""Arguments of a ResNet that need more than one line to check or to complete."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmse.models.recompute import RECOMPUTE
from mmse.utils.errors import UserError


def check_stages(
    owner: str, num_stages: int, out_indices: Sequence[int], **per_stage: Sequence[Any]
) -> None:
    """Check the arguments that say something about each stage.

    Args:
        owner: The class that errors name.
        num_stages: Number of stages.
        out_indices: Stages whose outputs are returned.
        **per_stage: Arguments that have one entry per stage.

    Raises:
        UserError: It names the argument, what was given and what is allowed.
    """
    if not 1 <= num_stages <= 4:
        raise UserError(f'{owner}.num_stages: {num_stages!r} given; allowed: 1 to 4')
    for key, values in per_stage.items():
        if len(values) != num_stages:
            raise UserError(
                f'{owner}.{key}: {len(values)} entries given; allowed: one per stage, {num_stages}'
            )
    if max(out_indices) >= num_stages:
        raise UserError(
            f'{owner}.out_indices: {tuple(out_indices)} given; allowed: 0 to {num_stages - 1}'
        )


def check_recompute(
    owner: str, recompute: str | None, norm_cfg: Mapping[str, Any], **others: Any
) -> None:
    """Check that ``recompute`` is known and can hold beside other arguments.

    Args:
        owner: The class that errors name.
        recompute: As the user gives it.
        norm_cfg: The norms' config.
        **others: Arguments beside which it cannot hold, unless they are None, False or 0.

    Raises:
        UserError: It names the argument, what was given and what is allowed.
    """
    if recompute is None:
        return
    if recompute not in RECOMPUTE:
        allowed = ', '.join(map(repr, RECOMPUTE))
        raise UserError(f'{owner}.recompute: {recompute!r} given; allowed: {allowed}')
    for name, value in others.items():
        if value:
            given = 'fused=False' if name == 'unfused' else name
            raise UserError(f'{owner}: recompute={recompute!r} and {given} given; allowed: one')
    if norm_cfg.get('type') not in ('BN', 'BN2d', 'SyncBN'):
        raise UserError(
            f'{owner}: recompute={recompute!r} needs norm_cfg of type BN or SyncBN, but it is '
            f'{norm_cfg.get("type")!r}'
        )


def starting_weights(
    owner: str, last_norm: int, init_cfg: Any, pretrained: str | None, zero_init_residual: bool
) -> tuple[Any, dict[str, Any] | None]:
    """MMEngine's initialisation configs of a backbone and of its blocks.

    Args:
        owner: The class that errors name.
        last_norm: Number of the last norm in a block's branch.
        init_cfg: What the user gives for the backbone; None takes mmdet's initialisation.
        pretrained: The deprecated way to name a checkpoint.
        zero_init_residual: Start each branch's last norm at zero. Beside an ``init_cfg`` of the
            user's it has no effect, as in mmdet.

    Raises:
        UserError: Both ``init_cfg`` and ``pretrained`` are given, or the latter is no name.
    """
    if pretrained is not None:
        if not isinstance(pretrained, str):
            raise UserError(f'{owner}.pretrained: {pretrained!r} given; allowed: a name of a file')
        if init_cfg is not None:
            raise UserError(f'{owner}: init_cfg and pretrained given; allowed: one of them')
        warnings.warn(
            "pretrained is deprecated: use init_cfg=dict(type='Pretrained', checkpoint=...)",
            DeprecationWarning,
            stacklevel=3,
        )
        return {'type': 'Pretrained', 'checkpoint': pretrained}, None
    if init_cfg is not None:
        return init_cfg, None
    ours = [
        {'type': 'Kaiming', 'layer': ['Conv2d', 'Linear']},
        {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
    ]
    if not zero_init_residual:
        return ours, None
    return ours, {'type': 'Constant', 'val': 0, 'override': {'name': f'norm{last_norm}'}}
