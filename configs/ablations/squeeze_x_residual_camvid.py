"""The claim on street scenes (CamVid)."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/camvid.py']
