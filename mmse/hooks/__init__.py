"""Hooks of MMEngine's Runner."""

from mmse.hooks.iteration_seed import IterationSeedHook

__all__ = ['IterationSeedHook']
