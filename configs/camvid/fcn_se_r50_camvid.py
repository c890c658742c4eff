"""FCN with an SE-ResNet on CamVid, 240x180."""

_base_ = ['../_base_/models/fcn_se.py', '../_base_/camvid.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 400
batch_size = 8
# --------------------------------------------------------------------------------------------

channels = _base_.widths[depth]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(depth=depth, attention=attention),
    decode_head=dict(in_channels=channels[3], num_classes=11),
    auxiliary_head=dict(in_channels=channels[2], num_classes=11),
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
