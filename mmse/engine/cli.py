"""What the command-line tools share: arguments, and one sentence for a user's mistake."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from mmse.utils.errors import UserError


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and its overrides, which most tools take."""
    parser.add_argument('config', help='a config file, or package::path of an installed one')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the config, such as model.backbone.attention=se',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what train.py and test.py share; the arguments are mmdet's."""
    add_config_arguments(parser)
    parser.add_argument(
        '--attention',
        metavar='PRESET|KEY=VALUE,...',
        help='put this attention into the ResNets of the config, such as sepp_v2 or '
        'squeeze=avg+max,residual=True',
    )
    parser.add_argument('--work-dir', help='where logs and results go; default: work_dirs/CONFIG')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='name every tensor that a checkpoint gave or left out',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def exit_with_one_sentence(
    main: Callable[[], None],
    stopped: str = 'stopped',
) -> None:
    """Run a command line; a user's mistake ends it with one sentence and exit code 2.

    Args:
        main: The command line.
        stopped: What to say when it is interrupted, unless the interruption says it itself.
    """
    warnings.showwarning = _show_warning
    try:
        main()
    except UserError as error:
        # One process of each machine speaks.
        if int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))) == 0:
            print('error:', ' '.join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print(str(interruption) or stopped, file=sys.stderr)
        sys.exit(130)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    """Print the warnings of mmse; what the libraries warn of is not the user's to mend."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        print(f'warning: {message}', file=sys.stderr)
