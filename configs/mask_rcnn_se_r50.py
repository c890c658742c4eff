"""Mask R-CNN with an SE-ResNet on the built-in data."""

_base_ = ['_base_/models/mask_rcnn_se.py', '_base_/shapes_det.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 480
batch_size = 4
# --------------------------------------------------------------------------------------------

model = dict(
    backbone=dict(depth=depth, attention=attention),
    neck=dict(in_channels=_base_.widths[depth]),
    roi_head=dict(bbox_head=dict(num_classes=6), mask_head=dict(num_classes=6)),
)

train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale_factor=1.0),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters)
