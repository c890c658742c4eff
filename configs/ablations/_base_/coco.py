"""Faster R-CNN R50 on COCO, pretrained, 1x."""

base = 'configs/coco/faster_rcnn_se_r50_fpn_1x_coco.py'
metric = 'coco/bbox_mAP'
smallest_effect = 0.002  # mAP, 0 to 1
overrides = {
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
}
