"""RetinaNet with an SE-ResNet, from scratch, for small images."""

_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

width = 128  # channels of the neck and the heads; mmdet's 256 double the cost of small images

model = dict(
    backbone=dict(
        type='mmse.SEResNet',
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(out_channels=width),
    bbox_head=dict(
        in_channels=width, feat_channels=width, anchor_generator=dict(octave_base_scale=2)
    ),
)
