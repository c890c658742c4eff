"""FCN with an SE-ResNet on the built-in data."""

_base_ = ['_base_/models/fcn_se.py', '_base_/shapes_seg.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
image_size = 128  # side of the generated images, pixels
max_iters = 480
batch_size = 4
# --------------------------------------------------------------------------------------------

channels = [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048]
model = dict(
    data_preprocessor=dict(size=(image_size, image_size)),
    backbone=dict(depth=depth, attention=attention),
    decode_head=dict(in_channels=channels[3], num_classes=7),
    auxiliary_head=dict(in_channels=channels[2], num_classes=7),
)

dataset = dict(data_root=f'data/shapes_{image_size}', shapes=dict(size=image_size))
train_dataloader = dict(batch_size=batch_size, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(total_steps=max_iters)
