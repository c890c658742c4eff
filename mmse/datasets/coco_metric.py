"""COCO's metric for files that COCOeval would misread."""

from typing import Any

from mmse.datasets.bases import base_class
from mmse.registry import METRICS


@METRICS.register_module()
class CocoMetric(base_class('mmdet.evaluation', 'CocoMetric', 'CocoMetric')):  # type: ignore[misc]
    """mmdet's ``CocoMetric``, with annotations numbered from 1 whatever their ids in the file are.

    COCOeval takes the id 0 for "no match" and needs numbers, but many tools count from 0 or write
    UUIDs. An annotation without ``iscrowd`` is an ordinary object.

    Args:
        ann_file: The COCO file.
        **kwargs: As for mmdet's.
    """

    def __init__(self, *, ann_file: str, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, **kwargs)
        for number, annotation in enumerate(self._coco_api.dataset['annotations'], start=1):
            annotation['id'] = number
            annotation.setdefault('iscrowd', 0)
        self._coco_api.createIndex()
