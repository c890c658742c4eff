"""Faster R-CNN R18 of half the width on BCCD, 240 iterations."""

_base_ = 'det.py'

base = 'configs/bccd/faster_rcnn_se_r50_bccd.py'

# Eight seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {'_delete_': True, 'saturated gates': dict(of='saturated', smallest_effect=0.02)}
