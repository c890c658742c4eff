"""How far does new attention on a pretrained backbone move, by its learning rate? On BCCD."""

_base_ = ['_base_/dose.py', '_base_/bccd.py']

pretraining = dict(
    base='configs/faster_rcnn_se_r50.py',
    metric='coco/bbox_mAP',
    overrides={**_base_.overrides, 'train_cfg.max_iters': 960, 'train_cfg.val_interval': 240},
)
