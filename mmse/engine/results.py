"""What predictions leave behind: COCO results, label maps, drawn pictures and videos."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import mmcv
import numpy as np
import PIL.Image
import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import Visualizer

from mmse.engine.inputs import Image
from mmse.engine.pictures import draw_sample, write_png
from mmse.utils.files import replacing, write_json

IGNORED = 255  # in a label map, what is none of the chosen classes


class CocoResults:
    """Detections as COCO results: ``predictions.bbox.json`` and, with masks, ``.segm.json``.

    Entries have ``file_name``, and ``frame`` in a video, beside COCO's keys. ``images.json``, in
    COCO's format without annotations, lists every image, and the classes with their ids from 1.

    Args:
        folder: Where the files go; it exists.
        classes: Names of the classes.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder, self._classes = folder, classes
        self._images: list[dict[str, Any]] = []
        self._open = ExitStack()
        self._files: dict[str, IO[str]] = {}
        self.detections = 0

    def __enter__(self) -> 'CocoResults':
        self._file('bbox')
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            for file in self._files.values():
                file.write('\n]\n')
            names = [{'id': k + 1, 'name': name} for k, name in enumerate(self._classes)]
            write_json(self._folder / 'images.json', {'images': self._images, 'categories': names})
        self._open.__exit__(kind, error, trace)

    def add(self, image: Image, sample: BaseDataElement) -> None:
        """Write the detections of an image."""
        names: dict[str, Any] = {'file_name': image.source.name}
        if image.frame is not None:
            names['frame'] = image.frame
        number = len(self._images) + 1
        height, width = sample.ori_shape[:2]
        self._images.append({'id': number, **names, 'width': width, 'height': height})
        self.detections += len(sample.pred_instances)
        for kind, entry in _entries(sample.pred_instances):
            file = self._file(kind)
            line = json.dumps({'image_id': number, **names, **entry}, allow_nan=False)
            file.write(('\n' if file.tell() == 1 else ',\n') + line)

    def _file(self, kind: str) -> IO[str]:
        if kind not in self._files:
            part = self._open.enter_context(replacing(self._folder / f'predictions.{kind}.json'))
            self._files[kind] = self._open.enter_context(part.open('w', encoding='utf-8'))
            self._files[kind].write('[')
        return self._files[kind]


class Pictures:
    """Predictions drawn on their images: a PNG for each image, an MP4 for each video.

    Args:
        folder: Where they go; created if missing.
        visualizer: mmdet's or mmseg's, with the ``dataset_meta`` of the model.
        score: Detections below it are not drawn.
    """

    def __init__(self, folder: Path, visualizer: Visualizer, score: float) -> None:
        self._folder, self._visualizer, self._score = folder, visualizer, score
        self._video: tuple[Path, cv2.VideoWriter] | None = None

    def add(self, image: Image, sample: BaseDataElement) -> None:
        """Draw one image, or warn that it cannot be drawn."""
        try:
            content = image.content
            pixels = mmcv.imread(content) if isinstance(content, str) else content
            drawn = draw_sample(
                self._visualizer, pixels[..., ::-1].copy(), sample, self._score, ground_truth=False
            )
        except Exception as error:  # whatever cannot be drawn has been predicted nevertheless
            print_log(f'{image.source.path} cannot be drawn: {error}', 'current', level=30)
            return
        path = self._folder / image.source.out
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.frame is None:
            write_png(drawn, path.with_name(f'{path.name}.png'))
            return
        path = path.with_name(f'{path.name}.mp4')
        if self._video is None or self._video[0] != path:
            self.close()
            code = cv2.VideoWriter.fourcc(*'mp4v')
            size = (drawn.shape[1], drawn.shape[0])
            self._video = path, cv2.VideoWriter(str(path), code, image.source.rate, size)
        self._video[1].write(drawn)

    def close(self) -> None:
        """Finish the video that is being written."""
        if self._video is not None:
            self._video[1].release()
            self._video = None


def choose(sample: BaseDataElement, score: float, chosen: Sequence[int]) -> None:
    """Leave out of a prediction what is below a score or of another class.

    Args:
        sample: A data sample of mmdet or mmseg; changed in place. In a label map other classes
            become 255.
        score: Detections below it are left out.
        chosen: The classes to keep, by number from 0.
    """
    keep = torch.as_tensor(list(chosen))
    if 'pred_instances' in sample:
        found = sample.pred_instances
        sample.pred_instances = found[(found.scores >= score) & torch.isin(found.labels, keep)]
    else:
        labels = sample.pred_sem_seg.data
        labels[~torch.isin(labels, keep)] = IGNORED


def write_label_map(
    labels: np.ndarray, path: Path, palette: Sequence[tuple[int, int, int]]
) -> None:
    """Write a label map as a PNG with its colours, one byte per pixel.

    Args:
        labels: (H, W), 0 to 255.
        path: The file; its folder is created if missing.
        palette: RGB in 0..255 for each class.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(labels.astype(np.uint8), mode='P')
    image.putpalette([value for colour in palette[:256] for value in colour])
    with replacing(path) as part:
        # With few colours Pillow would write 4 bits a pixel, and 255 would be read as 15.
        image.save(part, format='PNG', bits=8)


def _entries(found: InstanceData) -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys of COCO results of each detection, for boxes and for masks."""
    labels = [int(label) + 1 for label in found.labels]
    for (left, top, right, bottom), label, score in zip(
        found.bboxes.tolist(), labels, found.scores.tolist(), strict=True
    ):
        box = [left, top, right - left, bottom - top]
        yield 'bbox', {'category_id': label, 'bbox': box, 'score': score}
    if 'masks' not in found:
        return
    from mmdet.structures.mask import encode_mask_results

    scores = found.mask_scores if 'mask_scores' in found else found.scores
    codes = encode_mask_results(found.masks.numpy())
    for code, label, score in zip(codes, labels, scores.tolist(), strict=True):
        rle = {'size': list(map(int, code['size'])), 'counts': code['counts'].decode()}
        yield 'segm', {'category_id': label, 'segmentation': rle, 'score': score}
