"""The claim on CamVid, from pretrained backbones."""

_base_ = ['_base_/squeeze_x_residual.py', '_base_/camvid_pretrained.py']

# By the dose curve of pretrained starts, see docs/choosing.md.
overrides = {'optim_wrapper.paramwise_cfg.custom_keys.attention.lr_mult': 3.0}
