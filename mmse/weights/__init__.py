"""Checkpoints: loading them safely."""

from mmse.weights.safe_load import allow_mmengine_globals, read_checkpoint

__all__ = ['allow_mmengine_globals', 'read_checkpoint']
