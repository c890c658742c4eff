"""The claim on segmentation."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/seg.py', '_base_/outcomes_seg.py']

seeds = 16
looks = [8, 16]
