"""RetinaNet with an SE-ResNet, from scratch, for small images."""

_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../detector.py']

width = _base_.width

model = dict(
    backbone=_base_.backbone,
    neck=dict(out_channels=width),
    bbox_head=dict(
        in_channels=width, feat_channels=width, anchor_generator=dict(octave_base_scale=2)
    ),
)
