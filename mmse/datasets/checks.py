"""Checks of detection and segmentation data before a training starts.

What makes training fail or learn nonsense is a ``UserError`` that counts and names it; what is
only worth knowing comes back in a ``Report`` as warnings for the caller to log.
"""

from mmse.datasets.coco_checks import check_coco, coco_classes
from mmse.datasets.report import Report
from mmse.datasets.seg_checks import check_seg_pairs, scan_labels, seg_classes

__all__ = ['Report', 'check_coco', 'check_seg_pairs', 'coco_classes', 'scan_labels', 'seg_classes']
