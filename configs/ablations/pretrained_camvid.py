"""The claim on CamVid, from pretrained backbones."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/camvid_pretrained.py']
