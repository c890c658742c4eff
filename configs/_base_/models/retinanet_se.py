"""RetinaNet with an SE-ResNet, from scratch, for small images."""

_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

model = dict(
    backbone=dict(
        type='mmse.SEResNet',
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    bbox_head=dict(anchor_generator=dict(octave_base_scale=2)),
)
