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

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import get_installed_path
from support.optimizers import Training, rates_mismatch, training_of, what_decides_rates
from support.swapped import initial_mismatch, mismatch, what_decides_the_start
from swapped_backbones import family, fill, setting

from mmse import swap_backbone
from mmse.engine.config import load_config
from mmse.utils.errors import UserError

pytestmark = [
    pytest.mark.slow,
    # A thousand configs are read, and being traced makes that a fifth slower.
    pytest.mark.no_cover,
    pytest.mark.usefixtures('single_thread'),
    pytest.mark.filterwarnings('ignore'),
]

# Backbones of these types under the key `backbone` in the versions that `make setup` installs.
SHIPPED = {('mmdet', '3.3.0'): 547, ('mmseg', '1.2.2'): 429}


@dataclass
class Backbone:
    """A backbone of a config: where it stands, and its settings before and after the swap.

    Its training is the part of the model that holds it with the optimizer's config.
    """

    config: str
    key: str
    original: dict[str, Any]
    swapped: dict[str, Any]
    trainings: tuple[Training, Training]
    why: str | None = None


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
    nodes = [(key, node, copy.deepcopy(node.to_dict())) for key, node, _ in family(cfg.model)]
    before = training_of(cfg)
    try:
        changes = swap_backbone(cfg, None)
    except UserError:
        changes = []
    count = sum('.type: ' in line for line in changes)
    trainings = (before, training_of(cfg))
    found = [Backbone(name, key, old, node.to_dict(), trainings) for key, node, old in nodes]
    for backbone in found:
        rest = backbone.original.keys() - {'type'}
        if count != len(nodes):
            backbone.why = f'swap_backbone reports {count} of {len(nodes)} backbones'
        elif any(backbone.swapped[key] != backbone.original[key] for key in rest):
            backbone.why = 'swap_backbone changed a setting'
    return found


def judge(backbones: list[Backbone]) -> None:
    """Compare each distinct setting, initialisation and training once."""
    verdicts: dict[str, str | None] = {}
    for b in backbones:
        for check, arguments, key in (
            (mismatch, (b.original, b.swapped), setting(b.original)),
            (initial_mismatch, (b.original, b.swapped), what_decides_the_start(b.original)),
            (rates_mismatch, b.trainings, what_decides_rates(b.trainings[0])),
        ):
            key = f'{check.__name__} {key}'
            if key not in verdicts:
                torch.manual_seed(0)
                try:
                    verdicts[key] = check(*arguments)
                except Exception as error:  # all failures are listed together
                    verdicts[key] = f'{check.__name__}: {type(error).__name__}: {error}'
            b.why = b.why or verdicts[key]


def judge_beside_mmpretrain(backbones: list[Backbone]) -> None:
    """The same in a process that can import mmpretrain, whose ResNet these are."""
    tests = Path(__file__).parents[1]
    paths = [str(p) for p in (tests / 'engine', tests, tests.parent / 'tools' / 'experiments')]
    code = (
        f'import sys; sys.path[:0] = {paths!r}\n'
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
        f'({len({setting(b.original) for b in backbones})} distinct settings, '
        f'{len({what_decides_rates(b.trainings[0]) for b in backbones})} ways to train them; '
        f'{shipped} under backbone'
        + ''.join(f', {count} {kind}' for kind, count in others.items())
        + ')'
        + ''.join(f'; {count} configs not read: they {why}' for why, count in unread.items()),
    )
    lines = [f'{b.config}: {setting(b.original)}: {b.why}' for b in failed]
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
        ours.load_state_dict(theirs.state_dict(), strict=False)
        theirs.eval(), ours.eval()
        x = torch.randn(1, 3, 128, 128)
        pairs = zip(ours(x), theirs(x), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)
