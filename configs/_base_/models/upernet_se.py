"""UPerNet with an SE-ResNet, from scratch, for small images."""

_base_ = 'mmseg::_base_/models/upernet_r50.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    backbone=dict(type='mmse.SEResNetV1c', norm_cfg=norm_cfg),
    decode_head=dict(channels=256, norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
