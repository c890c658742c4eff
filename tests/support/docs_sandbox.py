"""The folder in which the documentation is run: tiny configs, data and checkpoints."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from support.engine import SHAPES
from support.own_data import CATEGORIES, write_detection, write_segmentation
from support.processes import source_of

from mmse.engine.build import build_model
from mmse.engine.config import innermost, load_config, walk
from mmse.engine.config.override import MEANINGFUL

ROOT = Path(__file__).parents[2]
FRAGMENTS_BELONG_TO = 'configs/faster_rcnn_se_r50.py'
USERS_CONFIG = "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
# The ablations in configs/ build on these.
ALWAYS_TINY = ('faster_rcnn_se_r50', 'fcn_se_r50')
TIMM_ATTENTION = {'preset': 'se', 'min_hidden': 8}
NARROW = {256: 64, 512: 128, 1024: 256, 2048: 512}  # channels of ResNet-50's stages: ResNet-18's


def make_sandbox(folder: Path, page: str) -> None:
    """Fill a folder with what users have; the configs that a page needs are made tiny."""
    linked = 'Makefile mmse pyproject.toml requirements setup.py tests tools'
    for name in linked.split():
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    for file in (folder / 'configs' / 'ablations').rglob('*.py'):
        file.write_text(shorter_question(file.read_text()))
    needed = {*re.findall(r'\w[\w-]+', page), *ALWAYS_TINY}
    for file in (folder / 'configs').rglob('*.py'):
        if file.stem in needed and not {'_base_', 'ablations'} & set(file.parts):
            file.write_text(tiny(ROOT / file.relative_to(folder)))
    (folder / 'my_config.py').write_text(USERS_CONFIG)


@cache
def tiny(file: Path) -> str:
    """The source of a config that makes a training take a second."""
    cfg = Config.fromfile(file)
    cfg.merge_from_dict(shorter(cfg))
    return source_of(cfg)


def narrow(channels: Any) -> Any:
    """The channels of ResNet-18's stages instead of ResNet-50's."""
    if isinstance(channels, list):
        return [narrow(number) for number in channels]
    return NARROW.get(channels, channels)


# Values that make a training take a second, by the place in the config.
SHORT: dict[str, Any] = {
    r'.*\.depth': lambda depth: min(depth, 18),
    r'model\.(neck|decode_head|auxiliary_head)\.(c1_)?in_channels': narrow,
    r'.*\.init_cfg': lambda init: None if init and 'checkpoint' in init else init,
    r'model\.pretrained': None,
    r'.*\.pipeline\..*\.(scale|crop_size)|model\.data_preprocessor\.size': (64, 64),
    r'.*\.shapes': SHAPES,
    r'\w+_dataloader\.batch_size|train_cfg\.(max_iters|val_interval)': lambda n: min(n, 2),
    r'train_cfg\.max_epochs': 1,
    r'\w+_dataloader\.num_workers': 0,
    r'\w+_dataloader\.persistent_workers': False,
}


def shorter(cfg: Config) -> dict[str, Any]:
    """Overrides that shorten a training, without those that would change nothing."""
    short = {}
    for place, value in walk({k: v for k, v in cfg.items() if k in MEANINGFUL}):
        for new in (new for pattern, new in SHORT.items() if re.fullmatch(pattern, place)):
            # Narrow channels must not be narrowed again.
            if new is not narrow or cfg.model.backbone.depth > 18:
                short[place] = new(value) if callable(new) else new
            if short.get(place, value) == value:
                short.pop(place, None)
    return short


def fewer_iterations(text: str) -> str:
    """The source of a config that trains for two iterations, if it says for how many."""
    return re.sub(r'\b(max_iters|val_interval)=\d+', r'\1=2', text)


def shorter_question(text: str) -> str:
    """The source of an ablation's config with one seed and trials of two iterations."""
    text = re.sub(
        r"('(?:train_cfg\.\w+|default_hooks\.checkpoint\.interval)': )\d+", r'\g<1>2', text
    )
    return re.sub(r'^seeds = \d+', 'seeds = 1', text, flags=re.M)


def make_checkpoint(path: Path) -> None:
    """Make a checkpoint that a page names: the last in its folder, or an untrained model's."""
    if trained := sorted(path.parent.glob('iter_*.pth')):
        path.symlink_to(trained[-1].name)
        return
    config = next(Path('configs').rglob(f'{path.parent.name}.py'), None)
    attention = {} if config else {'model.backbone.attention': TIMM_ATTENTION}
    cfg = load_config(str(config or FRAGMENTS_BELONG_TO), attention)
    init_default_scope(cfg.default_scope)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {'state_dict': build_model(cfg).module.state_dict(), 'meta': {'cfg': cfg.pretty_text}}, path
    )


def make_data(cfg: Config) -> None:
    """Two images with objects of three classes for each split of a config, if they are missing."""
    made = Path('made')
    if not made.exists():
        write_detection(made, {'train': 2, 'val': 2})
        write_segmentation(made, {'train': 2, 'val': 2})
    init_default_scope(cfg.default_scope)
    for split in ('train', 'val'):
        dataset = innermost(cfg[f'{split}_dataloader'].dataset)
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(dataset.type)
        if own := cfg.get('own_data'):
            names = {**own[split], 'root': own.data_root, 'classes': ('nut', 'bolt', 'gear')}
        elif kind.__module__.startswith('mmse.'):
            continue
        else:
            names = {key.removesuffix('_path'): name for key, name in dataset.data_prefix.items()}
            names |= {'root': dataset.data_root, 'ann_file': dataset.get('ann_file')}
            names |= dataset.get('metainfo') or kind.METAINFO
        root = Path(names['root'])
        if (root / names['img']).exists():
            continue
        if 'seg_map' in names:
            shutil.copytree(made / 'images' / split, root / names['img'])
            shutil.copytree(made / 'labels' / split, root / names['seg_map'])
        else:
            shutil.copytree(made / 'photos', root / names['img'])
            content = json.loads((made / f'{split}.json').read_text())
            numbers = [*CATEGORIES, *range(100, 200)]
            content['categories'] = [
                {'id': number, 'name': name}
                for number, name in zip(numbers, names['classes'], strict=False)
            ]
            (root / names['ann_file']).parent.mkdir(parents=True, exist_ok=True)
            (root / names['ann_file']).write_text(json.dumps(content))
