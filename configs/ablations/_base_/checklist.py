"""The checklist: every part of the attention, one at a time around the plain SE block.

``--cfg-options grid=full`` crosses all levels instead; the contrasts are then main effects.
"""

factors = dict(
    squeeze={
        'avg': {'model.backbone.attention.squeeze': 'avg'},
        'max': {'model.backbone.attention.squeeze': 'max'},
        'avg+max': {'model.backbone.attention.squeeze': 'avg+max'},
    },
    gate={
        'sigmoid': {'model.backbone.attention.gate': 'sigmoid'},
        'hardsigmoid': {'model.backbone.attention.gate': 'hardsigmoid'},
    },
    temperature={
        '1': {'model.backbone.attention.temperature': 1.0},
        '2': {'model.backbone.attention.temperature': 2.0},
        'learned': {'model.backbone.attention.learnable_temperature': True},
    },
    residual={
        'off': {'model.backbone.attention.residual': False},
        'alpha fixed': {'model.backbone.attention.residual': True},
        'alpha learned': {
            'model.backbone.attention.residual': True,
            'model.backbone.attention.learnable_alpha': True,
        },
    },
)
baseline = dict(squeeze='avg', gate='sigmoid', temperature='1', residual='off')
grid = 'one_at_a_time'
arms = dict(plain={'model.backbone.attention': None})

contrasts = {
    'max for avg': dict(of=dict(squeeze='max')),
    'avg+max for avg': dict(of=dict(squeeze='avg+max')),
    'hardsigmoid': dict(of=dict(gate='hardsigmoid')),
    'T = 2': dict(of=dict(temperature='2')),
    'T learned': dict(of=dict(temperature='learned')),
    'residual, alpha fixed': dict(of=dict(residual='alpha fixed')),
    'residual, alpha learned': dict(of=dict(residual='alpha learned')),
}
seeds = 9  # seven contrasts, Holm-corrected, cannot reach 0.05 with fewer
