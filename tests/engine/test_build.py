"""Runners where torch cannot do what a config asks for."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

from mmse.engine.build import BuiltModel, build_runner

pytest_plugins = ('support.engine_fixtures',)


class Refusing(torch.optim.SGD):
    """As AdamW on the CPU before torch 2.4."""

    def __init__(self, params: Any, lr: float, fused: bool = False) -> None:
        if fused:
            raise RuntimeError('`fused=True` requires all the params to be CUDA')
        super().__init__(params, lr)


class Unknowing(torch.optim.SGD):
    """As an optimizer that has no fused form."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)


class Taking(Unknowing):
    """As an optimizer that has one on this device."""

    def __init__(self, params: Any, lr: float, fused: bool = False) -> None:
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ('kind', 'kept'), [('Refusing', False), ('Unknowing', False), ('Taking', True)]
)
def test_fused_optimizers(
    kind: str, kept: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, no_env_report: None
) -> None:
    """One that the device refuses is taken in its usual form; so is one that is unknown."""
    for known in (Refusing, Unknowing, Taking):
        monkeypatch.setitem(OPTIMIZERS._module_dict, known.__name__, known)
    optimizer = {'type': kind, 'lr': 0.1, 'fused': True}
    cfg = Config(
        {
            'launcher': 'none',
            'work_dir': str(tmp_path),
            'optim_wrapper': {'optimizer': optimizer},
            'train_cfg': {'by_epoch': False, 'max_iters': 1},
            'train_dataloader': {'batch_size': 1, 'dataset': {'type': 'mmengine.BaseDataset'}},
        }
    )
    build_runner(cfg, BuiltModel(torch.nn.Linear(1, 1), None))
    assert ('fused' in cfg.optim_wrapper.optimizer) is kept
