"""How closely ONNX files in onnxruntime follow their models, for every preset and whole models.

Measured are an SE-ResNet-50 with each preset, and four models of ``configs/`` as a whole, with
seeded weights, and norm statistics from a batch of random images. Each is exported as it is and
folded, and compared at sizes that it was not traced with: the largest difference over the largest
value of the output. ``results/onnx_parity.json`` holds all numbers; the terminal shows the table of
the worst ones in docs/production.md. What is in the file is not measured again.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmse.engine.config import load_config
from mmse.export.onnx import export_onnx
from mmse.export.parts import load_part
from mmse.models import SEResNet
from mmse.models.settings import PRESETS
from mmse.utils.files import read_json, write_json

RESULTS = Path('results/onnx_parity.json')
SIZES = [(1, 224, 224), (2, 192, 320), (3, 161, 257)]
MODELS_AS_A_WHOLE = ('fcn_se_r50', 'pspnet_se_r50', 'upernet_se_r50', 'retinanet_se_r50')


def seeded_backbone(preset: str) -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(SEResNet(50, attention=preset))


def seeded_model(name: str) -> nn.Module:
    """The module that ``tools/export_onnx.py`` exports of a shipped config."""
    cfg = load_config(f'configs/{name}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    with_statistics(model.backbone)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = f'{folder}/weights.pth'
        torch.save({'state_dict': model.state_dict()}, checkpoint)
        return load_part(cfg, checkpoint, 'model')


def with_statistics(backbone: nn.Module) -> nn.Module:
    """The backbone in eval mode, its norms with the statistics of a batch of random images."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average itself
    with torch.no_grad():
        backbone.train()(torch.randn(4, 3, 128, 128))
    return backbone.eval()


def measure(case: str, fold: bool) -> dict[str, float]:
    """The relative difference at each size, which is named ``BATCHxHEIGHTxWIDTH``."""
    module = seeded_backbone(case) if case in PRESETS else seeded_model(case)
    with tempfile.TemporaryDirectory() as folder:
        differences = export_onnx(module, Path(folder) / 'net.onnx', SIZES, fold)
    return {'x'.join(map(str, size)): differences[size] for size in SIZES}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    results = read_json(RESULTS) if RESULTS.is_file() else {}
    for case in (*PRESETS, *MODELS_AS_A_WHOLE):
        for form, fold in (('as it is', False), ('folded', True)):
            if form not in results.setdefault(case, {}):
                results[case][form] = measure(case, fold)
                write_json(RESULTS, results)
    print('| network | as it is | folded |\n|---|---|---|')
    for case, forms in results.items():
        worst = [f'{max(forms[form].values()):.1e}' for form in ('as it is', 'folded')]
        print(f'| `{case}` |', ' | '.join(worst), '|')


if __name__ == '__main__':
    main()
