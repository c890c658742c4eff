"""Pictures of predictions beside the ground truth."""

import math
import os
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

COLUMNS = 2


def draw_pair(
    visualizer: Visualizer, sample: BaseDataElement, path: Path, score_thr: float = 0.4
) -> None:
    """Draw one image twice, side by side: ground truth left and prediction right.

    Args:
        visualizer: mmdet's or mmseg's, with the ``dataset_meta`` of the data.
        sample: What the model returned for the image.
        path: The picture to write.
        score_thr: Boxes and masks below this score are left out.
    """
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    options = {'pred_score_thr': score_thr} if 'pred_instances' in sample else {}
    visualizer.add_datasample(
        'prediction', image, data_sample=sample, out_file=str(path), **options
    )


def draw_predictions(runner: Runner, path: Path, count: int = 6) -> None:
    """Draw validation images, evenly spaced, in one picture; see ``draw_pair``.

    Args:
        runner: A runner with a trained model and a validation loop.
        path: The PNG to write.
        count: Number of images.
    """
    loader = runner.val_dataloader
    runner.visualizer.dataset_meta = loader.dataset.metainfo
    scratch = path.with_suffix('.part.png')
    pairs: list[np.ndarray] = []
    runner.model.eval()
    images = len(loader.dataset)
    with torch.no_grad():
        for index in np.linspace(0, images - 1, min(count, images)).astype(int):
            [sample] = runner.model.val_step(loader.collate_fn([loader.dataset[index]]))
            draw_pair(runner.visualizer, sample, scratch)
            pairs.append(mmcv.imread(scratch))
            scratch.unlink()
    _write_sheet(pairs, path)


def _write_sheet(pairs: list[np.ndarray], path: Path, gap: int = 8) -> None:
    height = max(p.shape[0] for p in pairs)
    width = max(p.shape[1] for p in pairs)
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, pair in enumerate(pairs):
        y = gap + (i // columns) * (height + gap)
        x = gap + (i % columns) * (width + gap)
        sheet[y : y + pair.shape[0], x : x + pair.shape[1]] = pair
    part = path.with_suffix('.part.png')
    mmcv.imwrite(sheet, str(part))
    os.replace(part, path)
