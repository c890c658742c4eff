"""The real timm and mmpretrain beside ours: the same weights give the same feature maps.

They run in a process of their own, because nothing else may see their torchvision.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import run_script
from torch import Tensor, nn

from mmse.checkpoints.convert import convert_file
from mmse.models import SEResNet, SEResNetV1d, SEResNeXt

pytestmark = pytest.mark.slow

THEIRS = """
import sys
import torch
from torch import nn
from mmse.benchmark.peers import import_peers
import_peers()
torch.manual_seed(0)
torch.set_num_threads(1)
torch.set_grad_enabled(False)

def features(net, file):
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    net.double().eval()  # which returns None in mmpretrain
    torch.save({'x': x, 'maps': list(net(x))}, file)

def uneven(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.15)  # at 1, depth 152 is chaotic
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        elif getattr(module, 'bias', None) is not None:
            nn.init.normal_(module.bias, 0, 0.3)
    return net
"""
MMPRETRAIN = """
from mmpretrain.models import SEResNet, SEResNeXt
"""
TIMM = """
import timm

class Maps(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
"""


@pytest.fixture
def in_their_process(tmp_path: Path) -> Callable[[str], None]:
    """Runs code that can import timm and mmpretrain, in the test's folder."""

    def run(code: str) -> None:
        (tmp_path / 'theirs.py').write_text(code)
        done = run_script(tmp_path / 'theirs.py', cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]

    return run


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    assert len(pairs) == 4 and all(b.abs().max() > 0.1 for _, b in pairs)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


SE8 = {'preset': 'se', 'min_hidden': 8}
NEXT = {'groups': 32, 'base_width': 4}
# What they are called there, and what they are called here.
MODELS: dict[str, tuple[str, type[SEResNet], dict[str, Any]]] = {
    'mmpretrain SE-ResNet-50': ('SEResNet(50, out_indices=range(4))', SEResNet, {'depth': 50}),
    'mmpretrain SE-ResNet-101': ('SEResNet(101, out_indices=range(4))', SEResNet, {'depth': 101}),
    'mmpretrain SE-ResNeXt-50': (
        'SEResNeXt(50, out_indices=range(4))',
        SEResNeXt,
        {'depth': 50, **NEXT},
    ),
    'mmpretrain SE-ResNet-50-D': (
        'SEResNet(50, deep_stem=True, avg_down=True, out_indices=range(4))',
        SEResNetV1d,
        {'depth': 50},
    ),
    'timm seresnet18': ("'seresnet18'", SEResNet, {'depth': 18, 'attention': SE8}),
    'timm seresnet50': ("'seresnet50'", SEResNet, {'depth': 50}),
    'timm seresnext50_32x4d': ("'seresnext50_32x4d'", SEResNeXt, {'depth': 50, **NEXT}),
    'timm seresnet152d': ("'seresnet152d'", SEResNetV1d, {'depth': 152}),
}


@pytest.mark.parametrize('name', MODELS)
def test_their_weights_in_ours(
    name: str, in_their_process, tmp_path: Path, record_property
) -> None:
    """Loaded as users do; and there and back again the file is the same, tensor by tensor."""
    build, kind, settings = MODELS[name]
    package = name.split()[0]
    if package == 'timm':
        code = f'{TIMM}net = uneven(timm.create_model({build}))\nmaps = Maps(net)\n'
    else:
        code = f'{MMPRETRAIN}net = maps = uneven({build})\n'
    save = "torch.save(net.state_dict(), 'theirs.pth')\nfeatures(maps, 'features.pth')\n"
    in_their_process(THEIRS + code + save)

    path = tmp_path / 'theirs.pth'
    given = torch.load(tmp_path / 'features.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(path)}
    net = kind(**{'attention': 'se', **settings}, init_cfg=init_cfg)
    net.init_weights()
    with torch.no_grad():
        difference = worst(list(net.double().eval()(given['x'])), given['maps'])
    record_property('worst relative difference to timm and mmpretrain, float64', difference)
    print(f'{name}: {difference:.1e}')
    assert difference <= 1e-9

    fits = convert_file(path, tmp_path / 'ours.pth', 'mmse').attention
    assert fits == settings.get('attention', {'preset': 'se'})
    convert_file(tmp_path / 'ours.pth', tmp_path / 'back.pth', package)
    theirs, back = torch.load(path), torch.load(tmp_path / 'back.pth')
    if package == 'mmpretrain':
        back = {key.removeprefix('backbone.'): v for key, v in back['state_dict'].items()}
    assert set(back) == set(theirs)
    assert all(torch.equal(back[key], value) for key, value in theirs.items())
    for file in tmp_path.glob('*.pth'):  # hundreds of megabytes that pytest would keep
        file.unlink()


def ours(path: Path, kind: type[SEResNet], **settings: Any) -> tuple[Tensor, list[Tensor]]:
    """Write the checkpoint of an uneven network of ours, as a training does; its features."""
    net = kind(**settings, norm_eval=False)
    net.train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.3)
        for _ in range(2):
            net(torch.randn(4, 3, 64, 64))
        cfg = f'model = dict(backbone=dict(attention={settings["attention"]!r}))'
        weights = {f'backbone.{key}': value for key, value in net.state_dict().items()}
        weights |= {'head.fc.weight': torch.ones(7, net.feat_dim), 'head.fc.bias': torch.ones(7)}
        torch.save({'state_dict': weights, 'meta': {'cfg': cfg}}, path)
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        return x, list(net.double().eval()(x))


@pytest.mark.parametrize('name', ['timm seresnet18', 'mmpretrain SE-ResNet-50-D'])
def test_our_weights_in_theirs(
    name: str, in_their_process, tmp_path: Path, record_property
) -> None:
    """Converted files are loaded strictly, a classifier's head with them."""
    build, kind, settings = MODELS[name]
    package = name.split()[0]
    x, maps = ours(tmp_path / 'ours.pth', kind, **{'attention': 'se', **settings})
    torch.save(x, tmp_path / 'x.pth')
    target = tmp_path / ('theirs.safetensors' if package == 'timm' else 'theirs.pth')
    convert_file(tmp_path / 'ours.pth', target, package)
    if package == 'timm':
        code = (
            f'net = timm.create_model({build}, num_classes=7)\n'
            f'timm.models.load_checkpoint(net, {str(target)!r}, strict=True)\n'
            'maps, head = Maps(net), net.fc\n'
        )
    else:
        code = (
            'from mmpretrain.models import ImageClassifier, LinearClsHead\n'
            'net = ImageClassifier(\n'
            "    dict(type='SEResNet', depth=50, deep_stem=True, avg_down=True,\n"
            '         out_indices=range(4)),\n'
            "    head=dict(type='LinearClsHead', num_classes=7, in_channels=2048))\n"
            f"net.load_state_dict(torch.load({str(target)!r})['state_dict'], strict=True)\n"
            'maps, head = net.backbone, net.head.fc\n'
        )
    in_their_process(
        f'{THEIRS}{TIMM if package == "timm" else MMPRETRAIN}{code}'
        'assert (head.weight == 1).all() and (head.bias == 1).all()\n'
        'maps.double().eval()\n'
        "torch.save(list(maps(torch.load('x.pth'))), 'maps.pth')\n"
    )
    difference = worst(torch.load(tmp_path / 'maps.pth'), maps)
    record_property('worst relative difference to timm and mmpretrain, float64', difference)
    print(f'{name}: {difference:.1e}')
    assert difference <= 1e-9
    for file in tmp_path.iterdir():
        file.unlink()


def test_step_of_an_mmpretrain_classifier(in_their_process) -> None:
    """By mmpretrain's registry, from a config that names ours and imports nothing."""
    in_their_process(
        """
import torch
from mmse.benchmark.peers import import_peers
import_peers()
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

torch.manual_seed(0)
init_default_scope('mmpretrain')
backbone = dict(type='mmse.SEResNet', depth=18, out_indices=(3,), attention='sepp_v2_residual')
model = MODELS.build(ConfigDict(
    type='ImageClassifier',
    backbone=backbone,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=512,
              loss=dict(type='CrossEntropyLoss')),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=5),
))
assert type(model.backbone).__module__ == 'mmse.models.se_resnet'
model.init_weights()
names = [n for n, _ in model.named_parameters() if '.attention.' in n]
assert len(names) == 8 * 6, len(names)
# Branches start at zero, behind which the attention cannot see a gradient.
for block in model.backbone.modules():
    if hasattr(block, 'norm2_name'):
        torch.nn.init.ones_(block.norm2.weight)
before = {n: p.detach().clone() for n, p in model.named_parameters()}
optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
samples = [DataSample().set_gt_label(label) for label in (0, 3)]
images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in samples]
losses = model.train().train_step(dict(inputs=images, data_samples=samples), optimizer)
assert losses['loss'].isfinite() and losses['loss'] > 0, losses
still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
assert not still, still
"""
    )
