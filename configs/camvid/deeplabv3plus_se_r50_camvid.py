"""DeepLabV3+ with an SE-ResNet on CamVid, 240x180."""

_base_ = ['../_base_/models/deeplabv3plus_se.py', '../_base_/camvid.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
max_iters = 400
batch_size = 8
# --------------------------------------------------------------------------------------------

channels = [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048]
model = dict(
    data_preprocessor=dict(size=(160, 224)),
    backbone=dict(depth=depth, attention=attention),
    decode_head=dict(in_channels=channels[3], c1_in_channels=channels[0], num_classes=11),
    auxiliary_head=dict(in_channels=channels[2], num_classes=11),
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(total_steps=max_iters)
