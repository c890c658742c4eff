"""A whole detector as ONNX, boxes and all, by mmdeploy: ``python tools/export_detector.py ...``.

mmdeploy 1.3.1 rewrites what is no network in a detector (proposals, NMS, cutting out regions). It
was made for torch 2.0; what it finds changed in newer ones is put back here, for this process only.
The file needs onnxruntime alone.
"""

import argparse
import functools
import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, init_default_scope
from torch import nn

from mmse.checkpoints import allow_mmengine_globals
from mmse.engine.build import load_trained
from mmse.engine.cli import exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.engine.config.own_data import innermost
from mmse.utils.errors import UserError

DYNAMIC = {
    'input': {0: 'batch', 2: 'height', 3: 'width'},
    'dets': {0: 'batch', 1: 'num_dets'},
    'labels': {0: 'batch', 1: 'num_dets'},
}


class _Patched(dict[Any, Any]):
    """torch.fx's table of wrapped functions, which was a list that mmdeploy pops from."""

    def pop(self, key: Any, *default: Any) -> Any:
        return self.popitem() if key == -1 else super().pop(key, *default)


def prepare_mmdeploy() -> None:
    """Put back what mmdeploy 1.3.1 expects of torch.

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
    # Under this name the package torch.onnx has another module than the import system.
    symbolic = import_module('torch.onnx.symbolic_opset9')
    if '_cast_Long' not in vars(symbolic):
        symbolic._cast_Long = lambda g, x, blocking: g.op('Cast', x, to_i=7)
    # Its rewriters reach into the exporter that traces; the newer one has nothing of theirs.
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)


def deploy_config(test_cfg: dict[str, Any]) -> Config:
    """What mmdeploy wants to know: ONNX with dynamic sizes, and the detector's own thresholds."""
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
                    # Of proposals, which mmdet keeps whatever their score; the rest has its own.
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


def read(cfg: Config, image: str) -> dict[str, Any]:
    """One image as the test pipeline gives it, in a batch."""
    steps = Compose([TRANSFORMS.build(step) for step in cfg.test_pipeline])
    item = steps({'img_path': image, 'img_id': 0})
    return {'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}


def compare(model: nn.Module, file: Path, batch: dict[str, Any]) -> tuple[int, int, float]:
    """Compare the file with the detector on one image.

    Returns:
        The number of boxes that the detector finds with a score above 0.3, how many of them the
        file finds within a pixel, and the largest difference of their coordinates, pixels.
    """
    data = model.data_preprocessor(batch, False)
    with torch.no_grad():
        [sample] = model.predict(data['inputs'], data['data_samples'], rescale=False)
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    dets, labels = session.run(None, {'input': data['inputs'].numpy()})
    wanted = sample.pred_instances[sample.pred_instances.scores > 0.3]
    distances = []
    for box, label in zip(wanted.bboxes, wanted.labels, strict=True):
        of_class = torch.from_numpy(dets[0, labels[0] == int(label), :4])
        distances.append(float((of_class - box).abs().amax(1).min()) if len(of_class) else math.inf)
    found = [distance for distance in distances if distance < 1]
    return len(distances), len(found), max(found, default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a whole detector to ONNX, by mmdeploy')
    parser.add_argument('config', help='a config file, or package::path of an installed one')
    parser.add_argument('checkpoint')
    parser.add_argument('image', help='an image to trace with and to compare on')
    parser.add_argument('out', type=Path, help='the ONNX file to write')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    args = parser.parse_args()
    if not Path(args.image).is_file():
        raise UserError(f'there is no image {args.image}')
    cfg = load_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmdet':
        raise UserError(f'{args.config} is no detector: tools/export_onnx.py exports the others')
    prepare_mmdeploy()
    allow_mmengine_globals()
    init_default_scope('mmdet')
    model = load_trained(cfg, args.checkpoint)
    pipeline = innermost(cfg.test_dataloader.dataset)['pipeline']
    cfg.test_pipeline = [step for step in pipeline if 'Annotations' not in step['type']]

    from mmdeploy.apis import torch2onnx

    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_suffix('.part.onnx')
    deploy = deploy_config(cfg.model.test_cfg)
    torch2onnx(args.image, str(part.parent), part.name, deploy, cfg, args.checkpoint, 'cpu')
    wanted, found, distance = compare(model, part, read(cfg, args.image))
    part.replace(args.out)
    print(f'{found} of {wanted} boxes are found within {distance:.1g} pixels')
    print(args.out)


if __name__ == '__main__':
    exit_with_one_sentence(main)
