"""Hooks of MMEngine's Runner."""

from mmse.hooks.draw import DrawHook
from mmse.hooks.gate_stats import GateStatsHook
from mmse.hooks.iteration_seed import IterationSeedHook

__all__ = ['DrawHook', 'GateStatsHook', 'IterationSeedHook']
