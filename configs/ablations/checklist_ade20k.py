"""The checklist on ADE20K, at full scale: UPerNet R50, pretrained, 160k iterations."""

_base_ = ['_base_/checklist.py', '_base_/ade20k.py']
