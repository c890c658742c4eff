"""The dose curve of new attention on pretrained backbones, on BCCD."""

_base_ = ['_base_/dose.py', '_base_/bccd_pretrained.py']
