"""The claim on BCCD, from pretrained backbones."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/bccd_pretrained.py']
