"""The checklist on COCO, at full scale: Faster R-CNN R50, pretrained, 1x."""

_base_ = ['_base_/checklist.py', '_base_/coco.py']
