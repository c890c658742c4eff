"""The dose curve on segmentation."""

_base_ = ['_base_/dose.py', '_base_/seg.py', '_base_/outcomes_seg.py']
