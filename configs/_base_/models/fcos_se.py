"""FCOS with an SE-ResNet, from scratch, for small images."""

_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../detector.py']

width = _base_.width

model = dict(
    type='FCOS',
    backbone=_base_.backbone,
    neck=dict(out_channels=width, add_extra_convs='on_output', relu_before_extra_convs=True),
    bbox_head=dict(
        _delete_=True,
        type='FCOSHead',
        num_classes=6,
        in_channels=width,
        feat_channels=width,
        stacked_convs=2,
        strides=[8, 16, 32, 64, 128],
        regress_ranges=((-1, 32), (32, 64), (64, 128), (128, 256), (256, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
    ),
    train_cfg=None,
)
