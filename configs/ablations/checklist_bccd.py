"""The checklist on blood cells (BCCD)."""

_base_ = ['_base_/checklist.py', '_base_/bccd.py']
