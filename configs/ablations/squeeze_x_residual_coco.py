"""The claim on COCO, at full scale: Faster R-CNN R50, pretrained, 1x."""

_base_ = 'squeeze_x_residual_det.py'

base = 'configs/coco/faster_rcnn_se_r50_fpn_1x_coco.py'
metric = 'coco/bbox_mAP'
smallest_effect = 0.002  # mAP, 0 to 1
overrides = {
    '_delete_': True,
    'model.backbone.attention': dict(squeeze='avg', act='silu', min_hidden=4),
}
