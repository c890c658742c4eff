"""Faster R-CNN R50 on COCO, pretrained, 1x."""

base = 'configs/coco/faster_rcnn_se_r50_fpn_1x_coco.py'
metric = 'coco/bbox_mAP'
smallest_effect = 0.002  # mAP, 0 to 1
overrides = {
    # In all blocks: that of the frozen layer1 stays at its start.
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
    # A trial has one GPU, and the learning rate is that of 8 GPUs with 2 images each.
    'train_dataloader.batch_size': 16,
}
