"""COCO's metric for files that COCOeval would misread."""

from typing import Any

from mmse.datasets.bases import base_class
from mmse.registry import METRICS
from mmse.utils.errors import UserError


@METRICS.register_module()
class CocoMetric(base_class('mmdet.evaluation', 'CocoMetric', 'CocoMetric')):  # type: ignore[misc]
    """mmdet's ``CocoMetric``, with annotations numbered from 1 whatever their ids in the file are.

    COCOeval takes the id 0 for "no match" and needs numbers, but many tools count from 0 or write
    UUIDs. An annotation without ``iscrowd`` is an ordinary object. Where each class gets its score,
    the categories are numbered in the order of the file, because COCOeval sorts them.

    Args:
        ann_file: The COCO file.
        classwise: As for mmdet's.
        outfile_prefix: As for mmdet's. Predictions are written with the ids of the file, so it is
            refused beside ``classwise`` where these do not rise.
        **kwargs: As for mmdet's.

    Raises:
        UserError: Both are asked for of such a file.
    """

    def __init__(
        self,
        *,
        ann_file: str,
        classwise: bool = False,
        outfile_prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            ann_file=ann_file, classwise=classwise, outfile_prefix=outfile_prefix, **kwargs
        )
        content = self._coco_api.dataset
        for number, annotation in enumerate(content['annotations'], start=1):
            annotation['id'] = number
            annotation.setdefault('iscrowd', 0)
        ids = [category['id'] for category in content['categories']]
        if classwise and sorted(ids) != ids:
            if outfile_prefix is not None:
                raise UserError(
                    f'{ann_file}: the ids of the categories do not rise, and COCOeval sorts them: '
                    'sort the categories by their ids, or leave out classwise or outfile_prefix'
                )
            numbers = {old: number for number, old in enumerate(ids, start=1)}
            for category in content['categories']:
                category['id'] = numbers[category['id']]
            for annotation in content['annotations']:
                annotation['category_id'] = numbers.get(annotation['category_id'], 0)
        self._coco_api.createIndex()
