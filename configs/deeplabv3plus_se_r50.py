"""DeepLabV3+ with an SE-ResNet on the built-in data."""

_base_ = ['_base_/models/deeplabv3plus_se.py', '_base_/shapes_seg.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 480
batch_size = 4
# --------------------------------------------------------------------------------------------

channels = _base_.widths[depth]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(depth=depth, attention=attention),
    decode_head=dict(in_channels=channels[3], c1_in_channels=channels[0], num_classes=7),
    auxiliary_head=dict(in_channels=channels[2], num_classes=7),
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
