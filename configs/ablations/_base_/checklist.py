"""The checklist: every part of the attention, one at a time around the plain SE block.

``--cfg-options grid=full`` crosses all levels instead; the contrasts are then main effects.
"""

factors = dict(
    squeeze={
        'avg': {'model.backbone.attention.squeeze': 'avg'},
        'max': {'model.backbone.attention.squeeze': 'max'},
        'avg+max': {'model.backbone.attention.squeeze': 'avg+max'},
        'avg+max summed': {
            'model.backbone.attention.squeeze': 'avg+max',
            'model.backbone.attention.fusion': 'sum',
        },
    },
    act={
        'silu': {'model.backbone.attention.act': 'silu'},
        'relu': {'model.backbone.attention.act': 'relu'},
    },
    reduction={
        '16': {'model.backbone.attention.reduction': 16},
        '8': {'model.backbone.attention.reduction': 8},
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
baseline = dict(
    squeeze='avg', act='silu', reduction='16', gate='sigmoid', temperature='1', residual='off'
)
grid = 'one_at_a_time'
arms = dict(plain={'model.backbone.attention': None})

contrasts = {
    'max for avg': dict(of=dict(squeeze='max')),
    'avg+max for avg': dict(of=dict(squeeze='avg+max')),
    'softmax for sum': dict(of=dict(squeeze='avg+max'), against=dict(squeeze='avg+max summed')),
    'relu for silu': dict(of=dict(act='relu')),
    'C/8 for C/16': dict(of=dict(reduction='8')),
    'hardsigmoid': dict(of=dict(gate='hardsigmoid')),
    'T = 2': dict(of=dict(temperature='2')),
    'T learned': dict(of=dict(temperature='learned')),
    'residual, alpha fixed': dict(of=dict(residual='alpha fixed')),
    'residual, alpha learned': dict(of=dict(residual='alpha learned')),
}
seeds = 9  # so many contrasts, Holm-corrected, cannot reach 0.05 with fewer
