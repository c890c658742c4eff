"""The claim on detection: do avg+max squeeze and residual gating help a detector?"""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/det.py', '_base_/outcomes_det.py']

seeds = 16
looks = [8, 16]
