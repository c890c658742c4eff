"""FCOS, 1x on COCO, with an SE-ResNet-50 from torchvision's weights (mmdet's own uses caffe's)."""

_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmse'], allow_failed_imports=False)

# layer1 is frozen, as usual with pretrained weights, so it gets no attention.
attention = [None] + ['sepp_v2_residual'] * 3
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        type='mmse.SEResNet',
        attention=attention,
        norm_cfg=dict(requires_grad=True),
        style='pytorch',
        init_cfg=dict(checkpoint='torchvision://resnet50'),
    ),
)
