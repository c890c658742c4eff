"""The claim: do avg+max squeeze and residual gating help?"""

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
