"""The claim on segmentation, where the attention starts as torch draws it."""

_base_ = 'squeeze_x_residual_seg.py'

start = 'default'
seeds = 8
looks = [8]
