"""The checklist on street scenes (CamVid)."""

_base_ = ['_base_/checklist.py', '_base_/camvid.py']
