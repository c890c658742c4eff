"""Label maps that show each class in a colour, as CVAT exports them."""

from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio

from mmse.datasets.bases import base_class
from mmse.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadAnnotationsByColour(
    base_class('mmseg.datasets.transforms', 'LoadAnnotations', 'LoadAnnotationsByColour')  # type: ignore[misc]
):
    """Load label maps whose colours stand for classes; otherwise mmseg's ``LoadAnnotations``.

    Args:
        colours: RGB in 0..255 for each class, in the order of the labels.
        **kwargs: As for mmseg's ``LoadAnnotations``.
    """

    def __init__(self, *, colours: Sequence[Sequence[int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.colours = [tuple(colour) for colour in colours]
        self._labels = {code: label for label, code in enumerate(_codes(self.colours).tolist())}

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        raw = fileio.get(results['seg_map_path'], backend_args=self.backend_args)
        bgr = mmcv.imfrombytes(raw, backend=self.imdecode_backend)
        codes, places = np.unique(_codes(bgr[..., ::-1]), return_inverse=True)
        labels = np.zeros(len(codes), np.uint8)
        for place, code in enumerate(codes.tolist()):
            if code not in self._labels:
                red, green, blue = code.to_bytes(3, 'big')
                raise ValueError(f'the colour {red},{green},{blue} is that of no class')
            labels[place] = self._labels[code]
        if results.get('reduce_zero_label'):
            labels -= 1  # 0 becomes 255
        chosen = results.get('label_map') or {}
        labels = np.array([chosen.get(label, label) for label in labels.tolist()], np.uint8)
        results['gt_seg_map'] = labels[places.reshape(bgr.shape[:2])]
        results['seg_fields'].append('gt_seg_map')


def _codes(rgb: Any) -> np.ndarray:
    """Colours (..., 3) in RGB as whole numbers (...)."""
    return np.asarray(rgb, np.int64) @ [65536, 256, 1]
