"""The claim on detection: do avg+max squeeze and residual gating help a detector?"""

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

factors = dict(
    squeeze={
        'avg': {'model.backbone.attention.squeeze': 'avg'},
        'avg+max': {
            'model.backbone.attention.squeeze': 'avg+max',
            'model.backbone.attention.fusion': 'softmax',
        },
    },
    residual={
        'off': {'model.backbone.attention.residual': False},
        'on': {
            'model.backbone.attention.residual': True,
            'model.backbone.attention.learnable_alpha': True,
        },
    },
)
baseline = dict(squeeze='avg', residual='off')
arms = dict(plain={'model.backbone.attention': None})

contrasts = {
    'avg+max squeeze': dict(of=dict(squeeze='avg+max')),
    'residual gating': dict(of=dict(residual='on')),
    'interaction': dict(interaction=dict(squeeze='avg+max', residual='on')),
    'both against plain': dict(of=dict(squeeze='avg+max', residual='on'), against='plain'),
}
seeds = 8
