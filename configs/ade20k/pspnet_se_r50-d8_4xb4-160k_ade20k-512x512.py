"""PSPNet on ADE20K with an SE-ResNet-50, 160k iterations."""

_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmse'], allow_failed_imports=False)

attention = 'sepp_v2_residual'
# torchvision's weights have the plain stem, so the backbone is SEResNet instead of SEResNetV1c.
model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(type='mmse.SEResNet', attention=attention),
)
