"""Faster R-CNN R18 of half the width on BCCD, 240 iterations."""

_base_ = ['det.py', 'outcomes_of_few_seeds.py']

base = 'configs/bccd/faster_rcnn_se_r50_bccd.py'
