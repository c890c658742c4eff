"""What becomes of the ResNets in one codebase's configs; ``codebases.py`` runs it in a process.

It takes the name of the package, the folder where it is installed, how many configs to judge at
most (0: all), and the configs to train for a step; it prints its findings as one line of JSON.
"""

import copy
import json
import sys
import types
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from swapped_backbones import Pair, family, setting
from torch import nn
from training_batches import BATCHES

from mmse import swap_backbone
from mmse.benchmark.peers import import_peers
from mmse.engine.build import build_model
from mmse.models import ChannelAttention
from mmse.utils.errors import UserError

FULL = 'sepp_v2_residual'
# The versions that a package asserts while it is imported, where newer ones are installed.
CLAIMED = {'mmocr': {'mmdet': '3.1.0'}, 'mmyolo': {'mmcv': '2.0.1'}}


def import_codebase(name: str, folder: Path) -> types.ModuleType:
    """Import a package beside newer ones than it was released for; its models are registered."""
    sys.path.append(str(folder))
    import_peers()
    # mmpose imports it; it is pycocotools with more metrics, and its wheels were built for numpy 1.
    for part in ('', '.coco', '.cocoeval', '.mask'):
        sys.modules[f'xtcocotools{part}'] = import_module(f'pycocotools{part}')
    if name == 'mmaction':
        # The wheel lacks the folder of one localizer, which no config with a ResNet uses.
        for part in ('', '.drn'):
            missing: Any = types.ModuleType(f'mmaction.models.localizers.drn{part}')
            missing.__path__, missing.DRN = [], None
            sys.modules[missing.__name__] = missing
    for asserted in CLAIMED.get(name, ()):
        import_module(asserted)
    with ExitStack() as claims:
        for asserted, version in CLAIMED.get(name, {}).items():
            claims.enter_context(mock.patch(f'{asserted}.__version__', version))
        package = import_module(name)
    import_module(f'{name}.models')
    return package


def configs(root: Path) -> Iterator[tuple[str, Config | str]]:
    """The config of each training by its path, or why it cannot be read."""
    for path in sorted(root.rglob('*.py')):
        if '_base_' not in path.parts and not path.name.startswith('_base_'):
            name = str(path.relative_to(root))
            try:
                yield name, Config.fromfile(path)
            except Exception as error:  # a config is anybody's code
                yield name, reason(error)


def reason(error: Exception) -> str:
    """The class and the first sentence of an error, which does not depend on where files lie."""
    text = (str(error).strip().splitlines() or [''])[0].split('. ')[0]
    words = [Path(word.strip("'")).name if '/' in word else word for word in text.split()]
    return f'{type(error).__name__}: {" ".join(words)}'


def without_checkpoints(node: Any) -> None:
    """Take the files of weights out of a model's config, which would be downloaded."""
    if isinstance(node, dict):
        if 'checkpoint' in (node.get('init_cfg') or ()):
            node['init_cfg'] = None
        if 'pretrained' in node:
            node['pretrained'] = None
    for value in node.values() if isinstance(node, dict) else node if type(node) is list else ():
        without_checkpoints(value)


def failure(what: Any, *arguments: Any) -> str | None:
    """Why a call fails; None if it does not."""
    try:
        what(*arguments)
    except Exception as error:  # all failures are listed together
        return reason(error)
    return None


class Findings:
    """What was found in the configs of one codebase."""

    def __init__(self) -> None:
        self.unread: Counter[str] = Counter()
        self.refused: list[dict[str, str | None]] = []
        self.swapped = 0
        self.not_built: dict[str, dict[str, str | None]] = {}
        self.verdicts: dict[str, str | None] = {}

    def add(self, name: str, cfg: Config) -> None:
        """Swap the backbones of a config, build its model, and compare the new backbones."""
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        without_checkpoints(cfg.model)
        before = copy.deepcopy(cfg)
        nodes = [(node, scope) for _, node, scope in family(cfg.model)]
        originals = [copy.deepcopy(node.to_dict()) for node, _ in nodes]
        try:
            swap_backbone(cfg, FULL)
        except UserError as error:
            original = failure(build_empty, before)
            self.refused.append({'config': name, 'why': str(error), 'original': original})
            return
        self.swapped += 1
        if why := failure(build_empty, cfg):
            self.not_built[name] = {'why': why, 'original': failure(build_empty, before)}
        for original, (node, scope) in zip(originals, nodes, strict=True):
            key = setting(original)
            if key not in self.verdicts:
                self.verdicts[key] = failure(compare, original, node.to_dict(), scope)


def build_empty(cfg: Config) -> nn.Module:
    """Build a model, leaving out the drawing of most weights."""
    with mock.patch('torch.nn.init.kaiming_uniform_'), mock.patch('torch.nn.init.kaiming_normal_'):
        return build_model(cfg).module


def compare(original: dict[str, Any], swapped: dict[str, Any], scope: str | None) -> None:
    """Fail unless the maps are equal, to the bit, with attention off."""
    torch.manual_seed(0)
    around = {'_scope_': scope} if scope else {}
    if not Pair({**original, **around}, {**swapped, **around}).equal():
        raise ArithmeticError('the feature maps differ')


def training_step(path: Path, package: str, change: Any = None) -> dict[str, Any]:
    """One step of SGD with full attention.

    Returns:
        The loss, and how many of the attention's trainable parameters have a finite gradient that
        is not zero.
    """
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    without_checkpoints(cfg.model)
    swap_backbone(cfg, FULL)
    torch.manual_seed(0)
    model = build_model(cfg).module
    model.train()
    optimizer = {'type': 'SGD', 'lr': 1e-4}
    wrapper = build_optim_wrapper(model, {'type': 'OptimWrapper', 'optimizer': optimizer})
    # The gradients of the step are still there after it.
    with mock.patch.object(wrapper, 'zero_grad'):
        losses = model.train_step(BATCHES[package](cfg), wrapper)
    trained = [
        param
        for module in model.modules()
        if isinstance(module, ChannelAttention)
        for param in module.parameters()
        if param.requires_grad
    ]
    moved = [p for p in trained if p.grad is not None and p.grad.isfinite().all() and p.grad.any()]
    return {'loss': float(losses['loss']), 'trained': len(trained), 'with_gradient': len(moved)}


def main(package: str, folder: str, limit: str, steps: Sequence[str]) -> None:
    warnings.simplefilter('ignore')
    module = import_codebase(package, Path(folder))
    root = Path(module.__file__ or '').parent / '.mim' / 'configs'
    findings, files = Findings(), 0
    for name, cfg in configs(root):
        files += 1
        if isinstance(cfg, str):
            findings.unread[cfg] += 1
        elif any(family(cfg.get('model'))):
            findings.add(name, cfg)
            if findings.swapped == int(limit) > 0:
                break
    taken: dict[str, Any] = {}
    for name in steps:
        try:
            taken[name] = training_step(root / name, package)
        except Exception as error:
            taken[name] = {'failed': reason(error)}
    print(
        json.dumps(
            {
                'version': module.__version__,
                'configs': files,
                'steps': taken,
                **vars(findings),
            }
        )
    )


if __name__ == '__main__':
    main(*sys.argv[1:4], sys.argv[4:])
