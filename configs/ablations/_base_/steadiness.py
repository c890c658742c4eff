"""Does residual gating steady a training? Learning rates at which one may fail."""

factors = dict(
    lr={
        'x 1': {'optim_wrapper.optimizer.lr': 1e-3},
        'x 4': {'optim_wrapper.optimizer.lr': 4e-3},
        'x 16': {'optim_wrapper.optimizer.lr': 16e-3},
    },
    residual={
        'off': {'model.backbone.attention.residual': False},
        'on': {
            'model.backbone.attention.residual': True,
            'model.backbone.attention.learnable_alpha': True,
        },
    },
)
baseline = dict(lr='x 1', residual='off')
arms = dict(plain={'model.backbone.attention': None})

contrasts = {
    'residual gating at x 4': dict(
        of=dict(lr='x 4', residual='on'), against=dict(lr='x 4', residual='off')
    ),
    'residual gating at x 16': dict(
        of=dict(lr='x 16', residual='on'), against=dict(lr='x 16', residual='off')
    ),
    'interaction': dict(interaction=dict(lr='x 16', residual='on')),
}
# Eight seeds cannot show more outcomes: Holm's correction counts them all.
secondary = {
    'diverged': dict(of='diverged', smallest_effect=0.05),
    'loss spikes': dict(of='spikes', smallest_effect=1),
}
seeds = 8
