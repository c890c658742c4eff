"""The claim on street scenes (CamVid)."""

_base_ = 'squeeze_x_residual_seg.py'

base = 'configs/camvid/fcn_se_r50_camvid.py'
overrides = {
    'train_cfg.max_iters': 480,
    'train_cfg.val_interval': 120,
    'param_scheduler.total_steps': 480,
    'default_hooks.checkpoint.interval': 120,
}
