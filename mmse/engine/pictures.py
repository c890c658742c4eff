"""One picture of predictions beside the ground truth."""

import math
import os
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.runner import Runner

COLUMNS = 2


def draw_predictions(runner: Runner, path: Path, count: int = 6, score_thr: float = 0.4) -> None:
    """Draw the first validation images as pairs, ground truth left and prediction right.

    Args:
        runner: A runner with a trained model and a validation loop.
        path: The PNG to write.
        count: Number of images.
        score_thr: Boxes and masks below this score are left out.
    """
    visualizer = runner.visualizer
    loader = runner.val_dataloader
    visualizer.dataset_meta = loader.dataset.metainfo
    options = {'pred_score_thr': score_thr} if runner.default_scope.scope_name == 'mmdet' else {}
    pairs: list[np.ndarray] = []
    runner.model.eval()
    with torch.no_grad():
        for batch in loader:
            for sample in runner.model.val_step(batch)[: count - len(pairs)]:
                image = mmcv.imread(sample.img_path, channel_order='rgb')
                scratch = path.with_suffix('.part.png')
                visualizer.add_datasample(
                    'prediction', image, data_sample=sample, out_file=str(scratch), **options
                )
                pairs.append(mmcv.imread(scratch))
                scratch.unlink()
            if len(pairs) >= count:
                break
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
