"""Configs: finding, reading, overriding, swapping attention in, and a user's own data."""

from mmse.engine.config.find import config_path, find_config
from mmse.engine.config.kinds import innermost, leaves
from mmse.engine.config.override import override, walk
from mmse.engine.config.own_data import apply_own_data
from mmse.engine.config.read import load_config, read_config, read_file
from mmse.engine.config.swap import swap_backbone

__all__ = [
    'apply_own_data',
    'config_path',
    'find_config',
    'innermost',
    'leaves',
    'load_config',
    'override',
    'read_config',
    'read_file',
    'swap_backbone',
    'walk',
]
