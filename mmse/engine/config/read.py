"""From the name of a config to the full config of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmse.engine.config.attention_params import could_have_a_rate
from mmse.engine.config.find import find_config, own_names_in_bases
from mmse.engine.config.override import override
from mmse.engine.config.own_data import apply_own_data
from mmse.engine.config.swap import (
    give_attention_a_rate,
    has_attention,
    parse_attention,
    swap_backbone,
)
from mmse.utils.dependencies import require, require_numpy
from mmse.utils.errors import UserError

NO_RATE = (
    'optim_wrapper: the attention gets the learning rate of its block, at which it hardly moved in '
    'short trainings with AdamW; --attention-lr-mult 10 gives it ten times that (docs/choosing.md)'
)


def load_config(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    attention: str | None = None,
    attention_lr_mult: float | None = None,
) -> Config:
    """Read a config, swap attention in, apply overrides, and fit it to the user's own data.

    Args:
        name: Path of a config file, or ``package::path`` of one in an installed package
            (``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``); see ``find_config``.
        overrides: Dotted keys with their new values, as ``--cfg-options`` gives them.
        attention: What every backbone of the ResNet family gets, as ``--attention`` gives it.
        attention_lr_mult: The attention's learning rate over that of its block, as
            ``--attention-lr-mult`` gives it.

    Raises:
        UserError: The file does not exist or does not parse, an override changes nothing, there
            is no backbone for the attention, or ``own_data`` does not fit.
    """
    cfg = read_config(name)
    if attention is not None:
        no_rate = attention_lr_mult is None and could_have_a_rate(cfg.get('optim_wrapper'))
        changes = swap_backbone(cfg, parse_attention(attention), attention_lr_mult)
        if no_rate and has_attention(cfg):
            changes.append(NO_RATE)
        print_log('\n  '.join([f'--attention {attention}:', *changes]), 'current')
    elif attention_lr_mult is not None:
        if not has_attention(cfg):
            raise UserError(
                '--attention-lr-mult: no backbone of the config has attention; give --attention'
            )
        print_log(give_attention_a_rate(cfg, attention_lr_mult)[0], 'current')
    override(cfg, overrides or {}, name)
    apply_own_data(cfg, name)
    return cfg


def read_config(name: str) -> Config:
    """Read a training config as it is; see ``load_config``.

    Raises:
        UserError: The file does not exist or does not parse, the package that it is for is not
            installed, or torch does not work with the numpy beside it.
    """
    cfg = read_file(name)
    require_numpy()
    if (scope := cfg.get('default_scope')) in ('mmdet', 'mmseg', 'mmpretrain'):
        require(scope, name)
    return cfg


def read_file(name: str | Path) -> Config:
    """Read a config of any kind, by its name; see ``find_config``.

    Wherever in its inheritance ``_base_`` names a config ``mmse::path``, that is found as well.

    Raises:
        UserError: The file, or one that it inherits from, does not exist or does not parse.
    """
    path = find_config(name)
    try:
        with own_names_in_bases():
            return Config.fromfile(path)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f'{name} inherits from a package that is not there: {error}') from error
    except Exception as error:  # a config is the user's Python: anything can go wrong in it
        raise UserError(f'{name} could not be read: {type(error).__name__}: {error}') from error
