"""Faster R-CNN R18 of half the width on BCCD, 480 iterations."""

_base_ = 'det.py'

base = 'configs/bccd/faster_rcnn_se_r50_bccd.py'
overrides = {
    'train_cfg.max_iters': 480,
    'train_cfg.val_interval': 120,
    'default_hooks.checkpoint.interval': 120,
}
