"""Faster R-CNN R18 on the built-in data, 240 iterations."""

base = 'configs/faster_rcnn_se_r50.py'
metric = 'coco/bbox_mAP'
smallest_effect = 0.01  # mAP, 0 to 1
overrides = {
    'model.backbone.depth': 18,
    'model.neck.in_channels': [64, 128, 256, 512],
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    'train_cfg.max_iters': 240,
    'train_cfg.val_interval': 80,
    'param_scheduler.total_steps': 240,
    'default_hooks.checkpoint.interval': 80,
}
