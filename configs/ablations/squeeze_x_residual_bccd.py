"""The claim on blood cells (BCCD)."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/bccd.py']
