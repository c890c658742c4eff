"""The dose curve on detection."""

_base_ = ['_base_/dose.py', '_base_/det.py', '_base_/outcomes_det.py']
