"""RetinaNet with an SE-ResNet on the built-in data."""

_base_ = ['_base_/models/retinanet_se.py', '_base_/shapes_det.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 480
batch_size = 4
# --------------------------------------------------------------------------------------------

model = dict(
    backbone=dict(depth=depth, attention=attention),
    neck=dict(in_channels=_base_.widths[depth]),
    bbox_head=dict(num_classes=6),
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
