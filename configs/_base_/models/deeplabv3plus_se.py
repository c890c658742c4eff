"""DeepLabV3+ with an SE-ResNet, from scratch, for small images."""

_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    backbone=dict(
        type='mmse.SEResNetV1c',
        strides=(1, 2, 2, 1),  # output stride 16
        dilations=(1, 1, 1, 2),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(channels=256, dilations=(1, 6, 12, 18), norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
