"""Faster R-CNN R18 of half the width on the built-in data, 240 iterations."""

base = 'configs/faster_rcnn_se_r50.py'
metric = 'coco/bbox_mAP'
smallest_effect = 0.01  # mAP, 0 to 1
overrides = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 32,
    # A branch that starts at zero stays small in so short a training, and its attention with it.
    'model.backbone.zero_init_residual': False,
    'model.neck.in_channels': [32, 64, 128, 256],
    'model.neck.out_channels': 64,
    'model.rpn_head.in_channels': 64,
    'model.rpn_head.feat_channels': 64,
    'model.roi_head.bbox_roi_extractor.out_channels': 64,
    'model.roi_head.bbox_head.in_channels': 64,
    'model.roi_head.bbox_head.fc_out_channels': 128,
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    'train_cfg.max_iters': 240,
    'train_cfg.val_interval': 80,
    'default_hooks.checkpoint.interval': 80,
}
