"""RetinaNet with an SE-ResNet on the built-in data."""

_base_ = ['_base_/models/retinanet_se.py', '_base_/shapes_det.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 50  # 18, 34, 50, 101 or 152
image_size = 128  # side of the generated images, pixels
max_iters = 480
batch_size = 4
# --------------------------------------------------------------------------------------------

channels = [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048]
model = dict(
    backbone=dict(depth=depth, attention=attention),
    neck=dict(in_channels=channels),
    bbox_head=dict(num_classes=6),
)

data_root = f'data/shapes_{image_size}'
dataset = dict(data_root=data_root, shapes=dict(size=image_size))
train_dataloader = dict(batch_size=batch_size, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(total_steps=max_iters)
