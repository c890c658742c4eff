"""Every ResNet of the configs that mmdet and mmseg ship, swapped and compared with the original."""

import copy
import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import get_installed_path
from torch import Tensor, nn

from mmse import swap_backbone
from mmse.engine.config import load_config
from mmse.models import ChannelAttention
from mmse.utils.errors import UserError

pytestmark = [
    pytest.mark.slow,
    # A thousand configs are read, and being traced makes that a fifth slower.
    pytest.mark.no_cover,
    pytest.mark.usefixtures('single_thread'),
    pytest.mark.filterwarnings('ignore'),
]

FAMILY = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
# Backbones of these types under the key `backbone` in the versions that `make setup` installs.
SHIPPED = {('mmdet', '3.3.0'): 547, ('mmseg', '1.2.2'): 429}
# Larger for deformable convolutions: mmcv's need 3 pixels or more in the last stage.
SIZE, DCN_SIZE = 64, 96


@dataclass
class Backbone:
    """A backbone of a config: where it stands, and its settings before and after the swap."""

    config: str
    key: str
    original: dict[str, Any]
    swapped: dict[str, Any]
    why: str | None = None

    @property
    def setting(self) -> str:
        """The settings that shape the network; how it is initialised and synchronised does not."""
        rest = {k: v for k, v in self.original.items() if k not in ('init_cfg', 'pretrained')}
        return json.dumps(rest, sort_keys=True).replace('SyncBN', 'BN')


def family(node: Any, key: str = 'model') -> Iterator[tuple[str, Any]]:
    """Every dict whose type names a ResNet, of whatever package, with the key that holds it."""
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] in FAMILY:
            yield key, node
        for name, value in node.items():
            yield from family(value, name)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from family(value, key)


def model_configs(package: str) -> Iterator[tuple[str, Config | str]]:
    """Each config with a model by its path, or why it cannot be read."""
    root = Path(get_installed_path(package), '.mim', 'configs')
    for path in sorted(root.rglob('*.py')):
        name = str(path.relative_to(root))
        if '_base_' in path.parts:
            continue
        try:
            cfg = Config.fromfile(path)
        except FileNotFoundError:
            yield name, 'name a file that is not shipped'
        except ImportError as error:
            if 'mmpretrain' not in str(error):
                raise
            yield name, 'need mmpretrain'
        else:
            if 'model' in cfg:
                yield name, cfg


def swapped_backbones(name: str, cfg: Config) -> list[Backbone]:
    """Swap a config and pair its backbones with what they were."""
    nodes = [(key, node, copy.deepcopy(node.to_dict())) for key, node in family(cfg.model)]
    try:
        changes = swap_backbone(cfg, None)
    except UserError:
        changes = []
    count = sum('.type: ' in line for line in changes)
    found = [Backbone(name, key, original, node.to_dict()) for key, node, original in nodes]
    for backbone in found:
        rest = backbone.original.keys() - {'type'}
        if count != len(nodes):
            backbone.why = f'swap_backbone reports {count} of {len(nodes)} backbones'
        elif any(backbone.swapped[key] != backbone.original[key] for key in rest):
            backbone.why = 'swap_backbone changed a setting'
    return found


def fill(net: nn.Module) -> None:
    """Give a network weights and statistics of which no two are alike and none is constant.

    Those of convolutions are cut out of the same drawn numbers, each from another place: drawing
    all of them would be a sixth of the test's time.
    """
    drawn, start = torch.randn(999_983), 0
    for name, param in net.named_parameters():
        if param.dim() < 2:
            param.normal_(1.0 if name.endswith('weight') else 0.0, 0.1)
        else:
            numbers = drawn.repeat(2 + param.numel() // len(drawn))[start:][: param.numel()]
            param.copy_(numbers.view_as(param) * param[0].numel() ** -0.5)
            start = (start + 7919) % len(drawn)
    for name, buffer in net.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)


def build(settings: dict[str, Any], **changes: Any) -> nn.Module:
    settings = {**copy.deepcopy(settings), 'init_cfg': None, **changes}
    settings.pop('pretrained', None)
    # Without a process group SyncBN is BN in training too.
    settings = json.loads(json.dumps(settings).replace('SyncBN', 'BN'))
    net = MODELS.build(settings)
    net.eval()  # mmdet's returns None
    return net


def build_empty(settings: dict[str, Any], **changes: Any) -> nn.Module:
    """A network whose weights hold nothing yet: what torch draws for them would be replaced."""
    with mock.patch('torch.nn.init.kaiming_uniform_'):
        return build(settings, **changes)


def mismatch(original: dict[str, Any], swapped: dict[str, Any]) -> str | None:
    """Why a swapped backbone does not do what the original does; None if it does."""
    theirs = build_empty(original)
    size = DCN_SIZE if original.get('dcn') else SIZE
    x = torch.randn(1, original.get('in_channels', 3), size, size)
    with torch.no_grad():
        fill(theirs)
        plain = build_empty(swapped)
        plain.load_state_dict(theirs.state_dict(), assign=True)
        want, got = theirs(x), plain(x)
    if len(got) != len(want) or not all(map(torch.equal, got, want)):
        return 'attention=None: the features differ from the original'
    return attention_mismatch(swapped, theirs, x, want)


def attention_mismatch(
    swapped: dict[str, Any], theirs: nn.Module, x: Tensor, want: tuple[Tensor, ...]
) -> str | None:
    ours = build_empty(
        swapped,
        attention='sepp_v2_residual',
        train_frozen_attention=True,
        preserve_pretrained=False,  # at the identity start fc1 has no gradient yet
    )
    for module in ours.modules():
        if isinstance(module, ChannelAttention):
            for param in module.parameters():
                nn.init.normal_(param, std=0.2)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.train()
    outs = ours(x)
    if [out.shape for out in outs] != [out.shape for out in want]:
        return f'shapes {[tuple(out.shape) for out in outs]}'
    # What stands behind the last stage that is returned gets no gradient in any network.
    used = tuple(ours.res_layers[: max(ours.out_indices) + 1])
    new = {n: p for n, p in ours.named_parameters() if '.attention.' in n and n.startswith(used)}
    blocks = sum(len(getattr(ours, stage)) for stage in used)
    if len(new) != 6 * blocks:  # weight and bias of fc1 and fc2, fusion_logits, alpha
        return f'{len(new)} new parameters in {blocks} blocks'
    if frozen := [name for name, param in new.items() if not param.requires_grad]:
        return f'frozen: {frozen}'
    sum(out.square().sum() for out in outs).backward(inputs=list(new.values()))
    dead = [n for n, p in new.items() if not (p.grad.isfinite().all() and p.grad.any())]
    return f'no finite gradient other than zero: {dead}' if dead else None


def judge(backbones: list[Backbone]) -> None:
    """Compare each distinct setting once."""
    verdicts: dict[str, str | None] = {}
    for backbone in backbones:
        if backbone.setting not in verdicts:
            torch.manual_seed(0)
            try:
                verdict = mismatch(backbone.original, backbone.swapped)
            except Exception as error:  # all failures are listed together
                verdict = f'{type(error).__name__}: {error}'
            verdicts[backbone.setting] = verdict
        backbone.why = backbone.why or verdicts[backbone.setting]


def judge_beside_mmpretrain(backbones: list[Backbone]) -> None:
    """The same in a process that can import mmpretrain, whose ResNet these are."""
    code = (
        f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
        'from mmse.benchmark.peers import import_peers; import_peers()\n'
        'import test_installed_configs as bed; bed.main()\n'
    )
    given = json.dumps(sorted({b.config for b in backbones}))
    done = subprocess.run(
        [sys.executable, '-c', code], input=given, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whys = json.loads(done.stdout.splitlines()[-1])
    assert len(whys) == len(backbones)
    for backbone, why in zip(sorted(backbones, key=lambda b: b.config), whys, strict=True):
        backbone.why = why


def main() -> None:
    """Judge the backbones of the mmdet configs that stdin names."""
    torch.set_num_threads(1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        found = [
            backbone
            for name in json.load(sys.stdin)
            for backbone in swapped_backbones(name, load_config(f'mmdet::{name}'))
        ]
        judge(found)
    print(json.dumps([backbone.why for backbone in found]))


def of_mmpretrain(backbone: Backbone) -> bool:
    return backbone.original['type'].startswith('mmpretrain.')


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_all_configs(package: str, record_property: Callable[[str, object], None]) -> None:
    version = importlib.import_module(package).__version__
    unread: Counter[str] = Counter()
    backbones: list[Backbone] = []
    with DefaultScope.overwrite_default_scope(package):
        for name, cfg in model_configs(package):
            if isinstance(cfg, str):
                unread[cfg] += 1
            else:
                backbones += swapped_backbones(name, cfg)
        beside = {b.config for b in backbones if of_mmpretrain(b)}
        judge([b for b in backbones if b.config not in beside])
    if beside:
        judge_beside_mmpretrain([b for b in backbones if b.config in beside])

    failed = [b for b in backbones if b.why]
    shipped = sum(b.key == 'backbone' and not of_mmpretrain(b) for b in backbones)
    others = Counter('mmpretrain.ResNet' if of_mmpretrain(b) else b.key for b in backbones)
    del others['backbone']
    record_property(
        'summary',
        f'{package} {version}: {len(backbones) - len(failed)} of {len(backbones)} backbones in '
        f'{len({b.config for b in backbones})} configs equal the original after the swap '
        f'({len({b.setting for b in backbones})} distinct settings; {shipped} under backbone'
        + ''.join(f', {count} {kind}' for kind, count in others.items())
        + ')'
        + ''.join(f'; {count} configs not read: they {why}' for why, count in unread.items()),
    )
    lines = [f'{b.config}: {b.setting}: {b.why}' for b in failed]
    assert not lines, '\n'.join(lines)
    assert shipped == SHIPPED.get((package, version), shipped)


@pytest.mark.parametrize(
    'name',
    [
        'mmseg::icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py',
        'mmseg::bisenetv1/bisenetv1_r50-d32_4xb4-160k_cityscapes-1024x1024.py',
    ],
)
def test_hosts_of_a_backbone(name: str) -> None:
    """ICNet and BiSeNet build a ResNet from ``backbone_cfg`` and reach into its stages."""
    cfg = load_config(name)
    cfg.model.backbone = json.loads(json.dumps(cfg.model.backbone).replace('SyncBN', 'BN'))
    original = copy.deepcopy(cfg.model.backbone)
    swap_backbone(cfg, None)
    assert cfg.model.backbone.type == original.type
    with DefaultScope.overwrite_default_scope('mmseg'), torch.no_grad():
        theirs, ours = MODELS.build(original), MODELS.build(cfg.model.backbone)
        fill(theirs)
        ours.load_state_dict(theirs.state_dict())
        theirs.eval(), ours.eval()
        x = torch.randn(1, 3, 128, 128)
        pairs = zip(ours(x), theirs(x), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)
