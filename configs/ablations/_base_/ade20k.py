"""UPerNet R50 on ADE20K, pretrained, 160k iterations."""

base = 'configs/ade20k/upernet_se_r50_4xb4-160k_ade20k-512x512.py'
metric = 'mIoU'
smallest_effect = 0.3  # mIoU, %
overrides = {
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
}
