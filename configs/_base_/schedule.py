"""The schedule of the small configs: AdamW, a warm-up, then a cosine; reproducible."""

train_cfg = dict(type='IterBasedTrainLoop', max_iters=480, val_interval=240)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW',
        lr=1e-3,
        weight_decay=0.05,
        # On CPUs since torch 2.4. An import would make this a pure-Python config.
        fused=__import__('mmengine').digit_version(__import__('torch').__version__) >= (2, 4),
    ),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        # The attention starts at the identity and has to move; see docs/choosing.md.
        custom_keys=dict(attention=dict(lr_mult=10.0, decay_mult=0.0)),
    ),
    clip_grad=dict(max_norm=10),
)
# The cosine ends with the training, whatever its length.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, end=72, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False),
]
custom_hooks = [
    dict(type='mmse.IterationSeedHook'),
    dict(type='mmse.GateStatsHook', interval=100),
]
randomness = dict(seed=0)
