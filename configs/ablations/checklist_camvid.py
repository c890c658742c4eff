"""The checklist on street scenes (CamVid)."""

_base_ = ['_base_/checklist_narrow.py', '_base_/camvid.py']
