"""The checklist on detection: every part of the attention, one at a time around the plain SE block.

``--cfg-options grid=full`` crosses all levels instead; the contrasts are then main effects.
"""

_base_ = ['_base_/checklist_narrow.py', '_base_/det.py', '_base_/outcomes_of_few_seeds.py']
