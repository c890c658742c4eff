"""The schedule of the small configs: AdamW, one cycle, reproducible."""

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
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = dict(
    type='OneCycleLR', eta_max=1e-3, total_steps=480, pct_start=0.15, by_epoch=False
)
custom_hooks = [
    dict(type='mmse.IterationSeedHook'),
    dict(type='mmse.GateStatsHook', interval=100),
]
randomness = dict(seed=0)
