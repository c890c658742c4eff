"""What the small segmenters share: their backbone, from scratch, and its norm."""

_base_ = 'resnet.py'

norm = dict(type='BN', requires_grad=True)
backbone = dict(type='mmse.SEResNetV1c', norm_cfg=norm)
# Output stride 16; mmseg's 8 quadruples the cost of the last stage.
backbone_os16 = dict(**backbone, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
