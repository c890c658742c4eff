"""Hooks of MMEngine's Runner."""

from mmse.hooks.draw import DrawHook
from mmse.hooks.finite_loss import FiniteLossHook
from mmse.hooks.gate_stats import GateStatsHook
from mmse.hooks.iteration_seed import IterationSeedHook
from mmse.hooks.optimizer_form import OptimizerFormHook

__all__ = ['DrawHook', 'FiniteLossHook', 'GateStatsHook', 'IterationSeedHook', 'OptimizerFormHook']
