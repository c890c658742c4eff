"""The claim on ADE20K, at full scale: UPerNet R50, pretrained, 160k iterations."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/ade20k.py']
