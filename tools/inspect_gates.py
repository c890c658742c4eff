"""Look at the gates of a trained model: ``python tools/inspect_gates.py CONFIG CHECKPOINT``."""

import argparse
from pathlib import Path

from mmse.engine.cli import add_config_arguments, exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.gates.inspect import inspect


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw what the gates of a trained model do')
    add_config_arguments(parser)
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--data', nargs='+', default=['val'], metavar='val|IMAGE', help='val, or image files'
    )
    parser.add_argument('--limit', type=int, default=128, help='validation images at most')
    parser.add_argument('--out', type=Path, help='folder; default: gates/ beside the checkpoint')
    parser.add_argument('--attention', metavar='PRESET|KEY=VALUE,...', help='as for train.py')
    args = parser.parse_args()
    images = None if args.data == ['val'] else args.data
    cfg = load_config(args.config, args.cfg_options, args.attention)
    out = args.out or Path(args.checkpoint).parent / 'gates'
    print(inspect(cfg, args.checkpoint, out, images, args.limit))


if __name__ == '__main__':
    exit_with_one_sentence(main)
