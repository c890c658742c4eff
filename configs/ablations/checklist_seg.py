"""The checklist on segmentation."""

_base_ = ['_base_/checklist.py', '_base_/seg.py']
