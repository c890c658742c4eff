"""UPerNet R50 on ADE20K, pretrained, 160k iterations."""

base = 'configs/ade20k/upernet_se_r50_4xb4-160k_ade20k-512x512.py'
metric = 'mIoU'
smallest_effect = 0.3  # mIoU, %
overrides = {
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    # A trial has one GPU, and the learning rate is that of 4 GPUs with 4 images each.
    'train_dataloader.batch_size': 16,
}
