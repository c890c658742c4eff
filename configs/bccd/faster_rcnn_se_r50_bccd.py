"""Faster R-CNN with an SE-ResNet on BCCD, 256x192."""

_base_ = ['../_base_/models/faster_rcnn_se.py', '../_base_/bccd.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 500
batch_size = 4
# --------------------------------------------------------------------------------------------

model = dict(
    backbone=dict(depth=depth, attention=attention),
    neck=dict(in_channels=_base_.widths[depth]),
    roi_head=dict(bbox_head=dict(num_classes=3)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),  # a dozen cells in an image
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
