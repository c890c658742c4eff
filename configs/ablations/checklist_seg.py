"""The checklist on segmentation."""

_base_ = ['_base_/checklist_narrow.py', '_base_/seg.py']

# Nine seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {'_delete_': True, 'saturated gates': dict(of='saturated', smallest_effect=0.02)}
