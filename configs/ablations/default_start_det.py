"""The claim on detection, where the attention starts as torch draws it."""

_base_ = 'squeeze_x_residual_det.py'

start = 'default'
seeds = 8
looks = [8]
