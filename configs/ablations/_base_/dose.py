"""How far does the attention move, by its learning rate over that of the other weights?"""

arms = {
    'plain': {'model.backbone.attention': None},
    **{
        f'attention, lr x {factor}': {
            'model.backbone.attention': 'sepp_v2_residual',
            'optim_wrapper.paramwise_cfg.custom_keys.attention.lr_mult': float(factor),
        }
        for factor in (1, 3, 10, 30)
    },
}
# The dose differs between learning rates far more than between seeds; this one is in no study.
seeds = [10000]
