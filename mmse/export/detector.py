"""ONNX files of whole detectors, boxes and all, made by mmdeploy 1.3.1.

mmdeploy rewrites the parts of a detector that are not a network: proposals, non-maximum suppression
and the cropping of regions. It was written for torch 2.0; ``prepare_mmdeploy`` adapts it to newer
versions, for the current process only. The file itself needs onnxruntime alone.
"""

import copy
import functools
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from mmse.engine.build import load_trained
from mmse.engine.images import image_batch, image_pipeline
from mmse.utils.errors import UserError
from mmse.utils.files import replacing

CERTAIN = 0.3  # score of the boxes that are compared
NEAR = 0.25  # of a box's longer side: how far its coordinates are from those of the same object
DYNAMIC = {
    'input': {0: 'batch', 2: 'height', 3: 'width'},
    'dets': {0: 'batch', 1: 'num_dets'},
    'labels': {0: 'batch', 1: 'num_dets'},
}


class Agreement(NamedTuple):
    """How well an ONNX file agrees with its detector on one image.

    Args:
        height: Height of the image as the detector gets it, pixels.
        width: Its width, pixels.
        boxes: Number of boxes that the detector finds with a score above 0.3.
        found: How many of them the file finds to within a pixel.
        distance: Largest difference of a coordinate among those, pixels.
        missed: For how many of the boxes the file has none of their class within a quarter of
            the longer side.
    """

    height: int
    width: int
    boxes: int
    found: int
    distance: float
    missed: int


def export_detector(cfg: Config, checkpoint: str, image: str, out: Path) -> list[Agreement]:
    """Write a detector as ONNX with dynamic batch, height and width, and compare it at two sizes.

    Args:
        cfg: The full config of an mmdet detector.
        checkpoint: The checkpoint file.
        image: The image file to trace with and to compare on.
        out: The ONNX file, which appears only if it agrees with the detector. Its inputs are
            normalised images, ``input`` (B, 3, H, W). Its outputs are ``dets`` (B, boxes, 5),
            which are x1, y1, x2, y2 in pixels and the score, and ``labels`` (B, boxes).

    Returns:
        The agreement on the image, and on about three quarters of its height and width.

    Raises:
        UserError: The config is not a detector's, mmdeploy or the image is missing, the
            checkpoint does not belong to the model, or the file fails or misses more than half of
            the boxes on one of the two images.
    """
    if cfg.get('default_scope') != 'mmdet':
        raise UserError(f'{cfg.filename} is no detector: tools/export_onnx.py exports the others')
    if not Path(image).is_file():
        raise UserError(f'there is no image {image}')
    prepare_mmdeploy()
    init_default_scope('mmdet')
    model = load_trained(cfg, checkpoint)
    dataset = cfg.test_dataloader.dataset
    cfg.test_pipeline = image_pipeline(dataset)

    from mmdeploy.apis import torch2onnx

    out.parent.mkdir(parents=True, exist_ok=True)
    # mmdeploy chooses the ending of the file's name itself.
    with tempfile.TemporaryDirectory() as folder, replacing(out) as part:
        deploy = deploy_config(cfg.model.test_cfg)
        torch2onnx(image, folder, 'detector.onnx', deploy, cfg, checkpoint, 'cpu')
        shutil.copyfile(Path(folder, 'detector.onnx'), part)
        batch = image_batch(dataset, image)
        preprocessor: Any = model.data_preprocessor
        smaller = upper_left(batch, preprocessor.pad_size_divisor)
        agreements = [compare(model, part, of) for of in (batch, smaller)]
        check(agreements)
    return agreements


def check(agreements: Sequence[Agreement]) -> None:
    """Refuse a file that misses more than half of the boxes of its detector.

    Other boxes may be found beside those of the detector, whose proposals are suppressed otherwise.

    Raises:
        UserError: It does, on one of the images.
    """
    for height, width, boxes, _, _, missed in agreements:
        if missed > boxes / 2:
            raise UserError(
                f'no file was written: on an image of {height}x{width} it misses {missed} of the '
                f"detector's {boxes} boxes"
            )


class _Patched(dict[Any, Any]):
    """torch.fx's table of wrapped functions; mmdeploy pops from it as from the list it once was."""

    def pop(self, key: Any, *default: Any) -> Any:
        return self.popitem() if key == -1 else super().pop(key, *default)


def prepare_mmdeploy() -> None:
    """Give mmdeploy 1.3.1 what it expects of torch.

    Raises:
        UserError: mmdeploy is not installed.
    """
    if find_spec('mmdeploy') is None:
        raise UserError(
            'exporting a detector needs mmdeploy: '
            'pip install --no-deps -r requirements/mmdeploy.txt'
        )
    from mmdeploy.core.rewriters import function_rewriter

    table = function_rewriter._wrapped_fns_to_patch
    function_rewriter._wrapped_fns_to_patch = _Patched(table) if isinstance(table, dict) else table
    # As an attribute of torch.onnx, this name is another module.
    symbolic = import_module('torch.onnx.symbolic_opset9')
    if '_cast_Long' not in vars(symbolic):
        vars(symbolic)['_cast_Long'] = lambda g, x, blocking: g.op('Cast', x, to_i=7)
    # mmdeploy's rewriters belong to the exporter that traces, no longer the default.
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)


def deploy_config(test_cfg: Mapping[str, Any]) -> Config:
    """mmdeploy's config: ONNX with dynamic sizes, and the thresholds of the detector itself.

    Args:
        test_cfg: ``model.test_cfg`` of the detector.
    """
    final = test_cfg.get('rcnn', test_cfg)
    return Config(
        {
            'onnx_config': {
                'type': 'onnx',
                'export_params': True,
                'keep_initializers_as_inputs': False,
                'opset_version': 11,
                'save_file': 'detector.onnx',
                'input_names': ['input'],
                'output_names': ['dets', 'labels'],
                'input_shape': None,
                'optimize': False,
                'dynamic_axes': DYNAMIC,
            },
            'codebase_config': {
                'type': 'mmdet',
                'task': 'ObjectDetection',
                'model_type': 'end2end',
                'post_processing': {
                    # For the proposals, which mmdet keeps whatever their score. The final boxes
                    # have the threshold of the detector's own config.
                    'score_threshold': 0.0,
                    'confidence_threshold': 0.0,
                    'iou_threshold': final['nms']['iou_threshold'],
                    'max_output_boxes_per_class': final['max_per_img'],
                    'pre_top_k': 5000,
                    'keep_top_k': final['max_per_img'],
                    'background_label_id': -1,
                },
            },
            'backend_config': {'type': 'onnxruntime'},
        }
    )


def upper_left(batch: dict[str, Any], divisor: int) -> dict[str, Any]:
    """A batch of one image, as the test pipeline gives it, cut to about 3/4 of each side.

    Args:
        batch: The batch.
        divisor: What height and width are multiples of, so that the part is not padded: the file
            clips boxes to the padded image, the detector to the image.
    """
    [image], [sample] = batch['inputs'], batch['data_samples']
    height, width = (max(side * 3 // 4 // divisor, 1) * divisor for side in image.shape[1:])
    part = image[:, :height, :width]
    sample = copy.deepcopy(sample)
    sample.set_metainfo({'img_shape': tuple(part.shape[1:])})
    return {'inputs': [part], 'data_samples': [sample]}


def compare(model: BaseModel, file: Path, batch: dict[str, Any]) -> Agreement:
    """Compare an ONNX file with its detector on a batch of one image.

    Args:
        model: The detector, in eval mode.
        file: The ONNX file.
        batch: The image, as the test pipeline gives it.

    Raises:
        UserError: onnxruntime refuses the file or the image.
    """
    import onnxruntime

    height, width = batch['inputs'][0].shape[1:]
    data = model.data_preprocessor(batch, False)
    with torch.no_grad():
        [sample] = model.predict(data['inputs'], data['data_samples'], rescale=False)
    try:
        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
        dets, labels = session.run(None, {'input': data['inputs'].numpy()})
    except Exception as error:  # onnxruntime has a class of errors for each of its status codes
        raise UserError(
            f'no file was written: it fails in onnxruntime on an image of {height}x{width}: {error}'
        ) from error
    wanted = sample.pred_instances[sample.pred_instances.scores > CERTAIN]
    nearest, missed = [], 0
    for box, label in zip(wanted.bboxes, wanted.labels, strict=True):
        of_class = torch.from_numpy(dets[0, labels[0] == int(label), :4])
        distance = float((of_class - box).abs().amax(1).min()) if len(of_class) else math.inf
        nearest.append(distance)
        missed += distance > max(1.0, NEAR * float((box[2:] - box[:2]).max()))
    found = [distance for distance in nearest if distance < 1]
    return Agreement(height, width, len(nearest), len(found), max(found, default=0.0), missed)
