"""FCN R18 of half the width on CamVid, 480 iterations."""

_base_ = 'seg.py'

base = 'configs/camvid/fcn_se_r50_camvid.py'
overrides = {
    'train_cfg.max_iters': 480,
    'train_cfg.val_interval': 120,
    'default_hooks.checkpoint.interval': 120,
}
