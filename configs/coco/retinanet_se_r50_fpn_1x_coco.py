"""RetinaNet, 1x on COCO, with an SE-ResNet-50."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmse'], allow_failed_imports=False)

# layer1 is frozen, as usual with pretrained weights, so it gets no attention.
attention = [None] + ['sepp_v2_residual'] * 3
model = dict(backbone=dict(type='mmse.SEResNet', attention=attention))
