"""DeepLabV3+ with an SE-ResNet, from scratch, for small images."""

_base_ = ['mmseg::_base_/models/deeplabv3plus_r50-d8.py', '../segmenter.py']

model = dict(
    pretrained=None,
    backbone=_base_.backbone_os16,
    decode_head=dict(channels=256, dilations=(1, 6, 12, 18), norm_cfg=_base_.norm),
    auxiliary_head=dict(norm_cfg=_base_.norm),
)
