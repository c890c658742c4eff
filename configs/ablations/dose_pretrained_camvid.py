"""How far does new attention on a pretrained backbone move, by its learning rate? On CamVid."""

_base_ = ['_base_/dose.py', '_base_/camvid.py']

pretraining = dict(
    base='configs/fcn_se_r50.py',
    metric='mIoU',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
