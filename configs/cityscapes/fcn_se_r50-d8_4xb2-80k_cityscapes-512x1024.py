"""FCN on Cityscapes with an SE-ResNet-50, 80k iterations."""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmse'], allow_failed_imports=False)

attention = 'sepp_v2_residual'
# torchvision's weights have the plain stem, so the backbone is SEResNet instead of SEResNetV1c.
model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(type='mmse.SEResNet', attention=attention),
)
