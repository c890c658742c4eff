"""A tiny training batch for a model of each codebase, with labels that mean nothing."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

Batch = Mapping[str, Any]


def mmpose(cfg: Config) -> Batch:
    """Two persons with heatmaps, as big as the config's codec says."""
    from mmpose.testing import get_packed_inputs

    codec = cfg.codec
    width, height = codec.input_size
    batch: Batch = get_packed_inputs(
        num_keypoints=cfg.model.head.get('out_channels') or cfg.model.head.num_joints,
        img_shape=(height, width),
        input_size=(width, height),
        heatmap_size=codec.get('heatmap_size', (width // 4, height // 4)),
        simcc_split_ratio=codec.get('simcc_split_ratio', 2.0),
    )
    return batch


def mmrotate(cfg: Config) -> Batch:
    """Two images with rotated boxes."""
    from mmrotate.testing import demo_mm_inputs

    batch: Batch = demo_mm_inputs(2, num_items=[3, 3], use_box_type=True)
    for sample in batch['data_samples']:
        del sample.ignored_instances
    return batch


def mmdet3d(cfg: Config) -> Batch:
    """One image of a camera with boxes in space in front of it."""
    from mmdet3d.structures import CameraInstance3DBoxes, Det3DDataSample
    from mmengine.structures import InstanceData

    height, width, number = 128, 160, 3
    camera = [[100.0, 0, width / 2, 0], [0, 100.0, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    size = cfg.model.bbox_head.get('bbox_code_size', 9)
    centres = torch.tensor([[40.0, 40], [80.0, 60], [120.0, 90]])
    boxes = torch.zeros(number, size)
    boxes[:, 2], boxes[:, 3:6] = 10, 2
    labels = torch.tensor([0, 1, 2])
    sample = Det3DDataSample(
        metainfo={
            'img_shape': (height, width),
            'ori_shape': (height, width),
            'pad_shape': (height, width),
            'scale_factor': 1.0,
            'cam2img': camera,
            'box_type_3d': CameraInstance3DBoxes,
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([centres - 15, centres + 15], 1), labels=labels
    )
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=CameraInstance3DBoxes(boxes, box_dim=size, origin=(0.5, 0.5, 0.5)),
        labels_3d=labels,
        centers_2d=centres,
        depths=torch.full((number,), 10.0),
        attr_labels=torch.zeros(number, dtype=torch.long),
    )
    return {'inputs': {'img': [torch.rand(3, height, width)]}, 'data_samples': [sample]}


def mmocr(cfg: Config) -> Batch:
    """Two images with words, as boxes and polygons."""
    from mmengine.structures import InstanceData
    from mmocr.structures import TextDetDataSample

    size = 160
    corners = [(10, 10, 90, 40), (30, 70, 150, 110)]
    samples = []
    for _ in range(2):
        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (size, size))
        sample = TextDetDataSample(metainfo={**shapes, 'scale_factor': (1.0, 1.0)})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(corners, dtype=torch.float32),
            labels=torch.zeros(2, dtype=torch.long),
            polygons=[np.array([a, b, c, b, c, d, a, d], np.float32) for a, b, c, d in corners],
            ignored=torch.zeros(2, dtype=torch.bool),
        )
        samples.append(sample)
    return {'inputs': [_image(size, size) for _ in samples], 'data_samples': samples}


def mmpretrain(cfg: Config) -> Batch:
    """Two labelled images; for self-supervised models two views of each."""
    from mmpretrain.structures import DataSample

    supervised = 'num_classes' in (cfg.model.get('head') or {})
    samples = [DataSample() for _ in range(2)]
    if supervised:
        for label, sample in enumerate(samples):
            sample.set_gt_label(label)
        return {'inputs': [_image(64, 64) for _ in samples], 'data_samples': samples}
    views = [torch.stack([_image(64, 64) for _ in samples]) for _ in range(2)]
    return {'inputs': views, 'data_samples': samples}


def mmyolo(cfg: Config) -> Batch:
    """Two images with boxes."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = (128, 128)
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo={'img_shape': size, 'ori_shape': size})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10, 60, 60], [30, 40, 100, 110]]),
            labels=torch.tensor([0, 1]),
        )
        samples.append(sample)
    return {'inputs': [_image(*size) for _ in samples], 'data_samples': samples}


def _image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


BATCHES: dict[str, Callable[[Config], Batch]] = {
    'mmpose': mmpose,
    'mmrotate': mmrotate,
    'mmdet3d': mmdet3d,
    'mmocr': mmocr,
    'mmpretrain': mmpretrain,
    'mmyolo': mmyolo,
}
