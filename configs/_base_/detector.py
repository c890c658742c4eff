"""What the small detectors share: their backbone, from scratch, and the width of their heads."""

_base_ = 'resnet.py'

width = 128  # channels of the neck and the heads; mmdet's 256 double the cost of small images
backbone = dict(
    type='mmse.SEResNet',
    frozen_stages=-1,
    norm_cfg=dict(requires_grad=True),
    norm_eval=False,
    init_cfg=None,
)
