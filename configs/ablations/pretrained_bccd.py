"""The claim on BCCD, from backbones that were trained on the built-in data without attention."""

_base_ = 'squeeze_x_residual_bccd.py'

pretraining = dict(
    base='configs/faster_rcnn_se_r50.py',
    metric='coco/bbox_mAP',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
