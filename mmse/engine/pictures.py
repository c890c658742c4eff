"""Pictures of predictions beside the ground truth."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer
from torch import Tensor

from mmse.utils.files import replacing

# On smaller images (pixels on the longer side) the visualizers' labels cover what they name.
READABLE = 400
SMALLEST_TEXT = 10  # points; mmdet writes the labels of small boxes in 6
GAP = 8  # pixels
BORDER = 2  # pixels between a text and the border of its picture


def draw_pair(
    visualizer: Visualizer, sample: BaseDataElement, score_thr: float = 0.4
) -> np.ndarray:
    """Draw one image twice, side by side: ground truth left and prediction right.

    Args:
        visualizer: mmdet's or mmseg's, with the ``dataset_meta`` of the data.
        sample: What the model returned for the image.
        score_thr: Boxes and masks below this score are left out.

    Returns:
        The picture, (H, 2 * W, 3) in BGR. H and W are the height and width of the image, or the
        smallest multiple of both that brings the longer side to 400 pixels or more.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    return draw_sample(visualizer, image, sample, score_thr)


def draw_sample(
    visualizer: Visualizer,
    image: np.ndarray,
    sample: BaseDataElement,
    score_thr: float,
    ground_truth: bool = True,
) -> np.ndarray:
    """Draw a prediction on its image, with the ground truth at its left unless told otherwise.

    Args:
        visualizer: mmdet's or mmseg's, with the ``dataset_meta`` of the data.
        image: The image, (H, W, 3) in RGB.
        sample: What the model returned for it.
        score_thr: Boxes and masks below this score are left out.
        ground_truth: Whether to draw the ground truth as well.

    Returns:
        The picture in BGR; its size is that of ``draw_pair``, or half as wide.
    """
    factor = math.ceil(READABLE / max(image.shape[:2]))
    if factor > 1:
        image = mmcv.imrescale(image, factor, interpolation='bicubic')
        sample = _enlarged(sample, factor)
    options = {'pred_score_thr': score_thr} if 'pred_instances' in sample else {}
    # Without a file the visualizer would add the picture to the logs of the run.
    with tempfile.TemporaryDirectory() as folder, _readable_text(visualizer):
        file = f'{folder}/drawn.png'
        visualizer.add_datasample(
            'drawn', image, data_sample=sample, draw_gt=ground_truth, out_file=file, **options
        )
        drawn: np.ndarray = mmcv.imread(file)
    return drawn


@contextmanager
def _readable_text(visualizer: Visualizer) -> Iterator[None]:
    """No text below ``SMALLEST_TEXT`` or past the right or lower border within the context."""
    draw_texts = visualizer.draw_texts

    def draw(*args: Any, font_sizes: Any = None, **kwargs: Any) -> Any:
        if isinstance(font_sizes, int):
            font_sizes = max(font_sizes, SMALLEST_TEXT)
        before = len(visualizer.ax_save.texts)
        result = draw_texts(*args, font_sizes=font_sizes, **kwargs)
        for text in visualizer.ax_save.texts[before:]:
            drawn = text.get_window_extent()  # in pixels, y from the lower border
            x, y = map(float, text.get_position())
            text.set_position(
                (x - max(0, drawn.x1 + BORDER - visualizer.width), y - max(0, BORDER - drawn.y0))
            )
        return result

    visualizer.draw_texts = draw
    try:
        yield
    finally:
        del visualizer.draw_texts


def _enlarged(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """The sample of an image that is enlarged by an integer factor."""
    large = sample.new()
    for name, data in sample.items():
        if name in ('gt_instances', 'pred_instances'):
            setattr(large, name, _enlarged_instances(data, factor))
        elif isinstance(data, PixelData) and name != 'seg_logits':
            maps = {key: _repeated(value, factor) for key, value in data.items()}
            setattr(large, name, PixelData(metainfo=data.metainfo, **maps))
    return large


def _enlarged_instances(instances: InstanceData, factor: int) -> InstanceData:
    large = instances.new()
    if 'bboxes' in instances:
        large.bboxes = factor * instances.bboxes
    if 'masks' in instances:
        masks = instances.masks
        if isinstance(masks, Tensor):
            large.masks = _repeated(masks, factor)
        else:  # mmdet's BitmapMasks or PolygonMasks
            large.masks = masks.resize((factor * masks.height, factor * masks.width))
    return large


def _repeated(maps: Any, factor: int) -> Tensor:
    """Maps (..., H, W), a tensor or an array, with every pixel as a square of pixels."""
    return torch.as_tensor(maps).repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def draw_predictions(runner: Runner, path: Path, count: int = 4) -> None:
    """Draw evenly spaced validation images, one pair below the other; see ``draw_pair``.

    Args:
        runner: A runner with a trained model and a validation loop.
        path: The PNG to write.
        count: Number of images.
    """
    loader = runner.val_dataloader
    runner.visualizer.dataset_meta = loader.dataset.metainfo
    pairs: list[np.ndarray] = []
    runner.model.eval()
    images = len(loader.dataset)
    with torch.no_grad():
        for index in np.linspace(0, images - 1, min(count, images)).astype(int):
            [sample] = runner.model.val_step(loader.collate_fn([loader.dataset[index]]))
            pairs.append(draw_pair(runner.visualizer, sample))
    write_png(_sheet(pairs), path)


def _sheet(pairs: list[np.ndarray]) -> np.ndarray:
    """Pictures one below the other, on white."""
    width = max(pair.shape[1] for pair in pairs) + 2 * GAP
    height = sum(pair.shape[0] + GAP for pair in pairs) + GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    y = GAP
    for pair in pairs:
        sheet[y : y + pair.shape[0], GAP : GAP + pair.shape[1]] = pair
        y += pair.shape[0] + GAP
    return sheet


def write_png(image: np.ndarray, path: Path) -> None:
    """Write an image, (H, W, 3) in BGR, as a PNG, whole or not at all."""
    _, encoded = cv2.imencode('.png', image)
    with replacing(path) as part:
        part.write_bytes(encoded.tobytes())
