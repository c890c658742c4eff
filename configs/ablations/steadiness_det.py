"""Does residual gating steady a training, on detection?"""

_base_ = ['_base_/steadiness.py', '_base_/det.py']
