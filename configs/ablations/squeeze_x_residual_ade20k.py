"""The claim on ADE20K, at full scale: UPerNet R50, pretrained, 160k iterations."""

_base_ = 'squeeze_x_residual_seg.py'

base = 'configs/ade20k/upernet_se_r50_4xb4-160k_ade20k-512x512.py'
metric = 'mIoU'
smallest_effect = 0.3  # mIoU, %
overrides = {
    '_delete_': True,
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
}
