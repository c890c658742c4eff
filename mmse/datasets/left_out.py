"""What a training leaves out: images by ``filter_cfg``, objects by mmdet's reader."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmse.datasets.coco_values import Content
from mmse.datasets.reading import Reading

OUTSIDE = 'outside their image'


def set_aside(reading: Reading, content: Content) -> Counter[str]:
    """Numbers of a COCO file's objects that mmdet leaves out, by reason.

    The total is what the built data set lacks; the reasons follow mmdet's ``CocoDataset``.
    """
    images = {image['id']: image for image in content['images']}
    trained = set(reading.dataset.cat_ids)
    ids = {item['img_id'] for item in reading.items}
    reasons: Counter[str] = Counter()
    for annotation in content['annotations']:
        if annotation['image_id'] in ids and annotation['category_id'] in trained:
            reason = _why_set_aside(annotation, images[annotation['image_id']])
            if reason is not None:
                reasons[reason] += 1
    return reasons


def _why_set_aside(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> str | None:
    x, y, width, height = annotation['bbox']
    if annotation.get('ignore', False):
        return 'marked "ignore"'
    right, bottom = min(x + width, image['width']), min(y + height, image['height'])
    if right <= max(x, 0) or bottom <= max(y, 0):
        return OUTSIDE if min(width, height) > 0 else 'without extent'
    if annotation['area'] <= 0:
        return 'with area 0 (it is width times height)'
    return 'less than a pixel wide or high' if min(width, height) < 1 else None


def left_out(reading: Reading) -> list[str]:
    """Sentences about images that ``filter_cfg`` keeps out of the training, and what keeps them."""
    rules = reading.cfg.get('filter_cfg') or {}
    kept = {id(item) for item in reading.kept}
    out = [item for item in reading.listed if id(item) not in kept]
    least = rules.get('min_size', 0)
    small = [i for i in out if min(i.get('width', math.inf), i.get('height', math.inf)) < least]
    place = f'{reading.place}.filter_cfg'
    reasons = [
        (len(small), f'less than {least} pixels wide or high', f'{place}.min_size=0'),
        (len(out) - len(small), 'without an object', f'{place}.filter_empty_gt=False'),
    ]
    return [
        f'{number} of {len(reading.listed)} images are left out of the training, because they are '
        f'{words}: {key} keeps them'
        for number, words, key in reasons
        if number
    ]


def in_words(reasons: Counter[str]) -> str:
    """Numbers and reasons, the most frequent first."""
    return ', '.join(f'{number} {reason}' for reason, number in reasons.most_common())
