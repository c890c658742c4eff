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
seeds = [10000]  # which is in no study that compares arms
