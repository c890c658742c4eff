"""FCN R18 of half the width on the built-in data, 240 iterations."""

base = 'configs/fcn_se_r50.py'
metric = 'mIoU'
smallest_effect = 1.0  # mIoU, %
overrides = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 32,
    # A branch that starts at zero stays small in so short a training, and its attention with it.
    'model.backbone.zero_init_residual': False,
    'model.decode_head.in_channels': 256,
    'model.auxiliary_head.in_channels': 128,
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    'train_cfg.max_iters': 240,
    'train_cfg.val_interval': 80,
    'default_hooks.checkpoint.interval': 80,
}
