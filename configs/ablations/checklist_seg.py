"""The checklist on segmentation."""

_base_ = ['_base_/checklist_narrow.py', '_base_/seg.py', '_base_/outcomes_of_few_seeds.py']
