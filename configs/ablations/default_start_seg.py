"""The claim on segmentation, where the attention starts as torch draws it."""

_base_ = 'squeeze_x_residual_seg.py'

start = 'default'
seeds = 8
looks = [8]
# Eight seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {'_delete_': True, 'saturated gates': dict(of='saturated', smallest_effect=0.02)}
