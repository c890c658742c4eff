"""BCCD, from a plain backbone that was trained on the built-in data, 960 iterations."""

_base_ = 'bccd.py'

pretraining = dict(
    base='configs/faster_rcnn_se_r50.py',
    metric='coco/bbox_mAP',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
