"""CamVid, from a plain backbone that was trained on the built-in data, 960 iterations."""

_base_ = 'camvid.py'

pretraining = dict(
    base='configs/fcn_se_r50.py',
    metric='mIoU',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
