"""Does residual gating steady a training, on segmentation?"""

_base_ = ['_base_/steadiness.py', '_base_/seg.py']
