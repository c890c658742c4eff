"""The dose curve of new attention on pretrained backbones, on CamVid."""

_base_ = ['_base_/dose.py', '_base_/camvid_pretrained.py']
