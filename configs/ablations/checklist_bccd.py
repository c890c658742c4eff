"""The checklist on blood cells (BCCD)."""

_base_ = ['_base_/checklist_narrow.py', '_base_/bccd.py']
