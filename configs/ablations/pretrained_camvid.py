"""The claim on CamVid, from backbones that were trained on the built-in data without attention."""

_base_ = 'squeeze_x_residual_camvid.py'

pretraining = dict(
    base='configs/fcn_se_r50.py',
    metric='mIoU',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
