"""The claim on segmentation, where the attention starts as torch draws it."""

_base_ = [
    '_base_/squeeze_x_residual.py',
    '_base_/seg.py',
    '_base_/outcomes_of_few_seeds.py',
]

start = 'default'
