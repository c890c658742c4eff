"""YOLOv5 with mmdet's ResNet, as mmyolo's guide puts one in; none of its own configs has one."""

_base_ = 'mmyolo::yolov5/yolov5_s-v61_syncbn_8xb16-300e_coco.py'

channels = [512, 1024, 2048]
model = dict(
    backbone=dict(
        _delete_=True, type='mmdet.ResNet', depth=50, out_indices=(1, 2, 3), frozen_stages=1
    ),
    neck=dict(in_channels=channels, out_channels=channels, widen_factor=1.0),
    bbox_head=dict(head_module=dict(in_channels=channels, widen_factor=1.0)),
)
