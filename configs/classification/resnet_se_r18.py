"""An image classifier with an SE-ResNet on the built-in data, one object a picture."""

_base_ = ['../_base_/resnet.py', '../_base_/shapes_cls.py']

# ---- edit these first ----------------------------------------------------------------------
attention = 'sepp_v2_residual'  # None, a preset, a dict, or a list over stages: see README
depth = 18  # 18, 34, 50, 101 or 152
max_iters = 480
batch_size = 32
# --------------------------------------------------------------------------------------------

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=6, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
    backbone=dict(
        type='mmse.SEResNet',
        depth=depth,
        attention=attention,
        out_indices=(3,),
        norm_eval=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=6,
        in_channels=_base_.widths[depth][3],
        loss=dict(type='CrossEntropyLoss'),
    ),
)
train_dataloader = dict(batch_size=batch_size)
train_cfg = dict(max_iters=max_iters)
