"""The configs that come with mmse, for whoever reads them with MMEngine alone."""


def config_path(name: str) -> str:
    """The path of a config that comes with mmse, from a wheel as from the repository.

    ``Config.fromfile`` takes it, and so does a ``_base_``, with any tool that reads configs with
    MMEngine: ``_base_ = __import__('mmse').config_path('fcn_se_r50.py')``.

    Args:
        name: The config's path in the folder ``configs``.

    Raises:
        UserError: There is no such config.
    """
    # Here, so that `import mmse` does not import matplotlib.
    from mmse.engine.config import find_config

    return str(find_config(f'mmse::{name}'))
