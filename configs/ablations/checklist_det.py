"""The checklist on detection: every part of the attention, one at a time around the plain SE block.

``--cfg-options grid=full`` crosses all levels instead; the contrasts are then main effects.
"""

_base_ = ['_base_/checklist_narrow.py', '_base_/det.py']

# Nine seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {'_delete_': True, 'saturated gates': dict(of='saturated', smallest_effect=0.02)}
