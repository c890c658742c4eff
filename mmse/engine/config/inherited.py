"""What a config file inherits, to tell it from what its user sets."""

from pathlib import Path

from mmengine.config import Config

from mmse.engine.config.find import find_config, own_names_in_bases
from mmse.engine.config.kinds import leaves

# What a user may set for data of their own, though a file that inherits from nothing also says
# where other data are.
USERS_IN_ONE_FILE = ('metainfo', 'reduce_zero_label', 'img_suffix', 'seg_map_suffix')


def inherited(name: str | Path) -> Config:
    """The config below the file that sets ``own_data``.

    A file without ``_base_`` stands for itself, without what describes the data in it.

    Args:
        name: The config's name; see ``find_config``.
    """
    with own_names_in_bases():
        return _below(name)


def _below(name: str | Path) -> Config:
    path = str(find_config(name))
    bases = [] if Config._is_lazy_import(path) else Config._get_base_files(path)
    below = [Config._get_cfg_path(base, path)[0] for base in bases]
    if not below:
        cfg = Config.fromfile(path)
        for split in ('train', 'val', 'test'):
            if cfg.get(f'{split}_dataloader') is not None:
                for leaf in leaves(cfg[f'{split}_dataloader']['dataset']):
                    for key in USERS_IN_ONE_FILE:
                        leaf.pop(key, None)
        return cfg
    merged = Config()
    for base in below:
        cfg = Config.fromfile(base)
        merged.merge_from_dict((_below(base) if 'own_data' in cfg else cfg).to_dict())
    return merged
