"""Train a detector or a segmenter: ``python tools/train.py CONFIG``."""

import argparse

from mmse.engine.cli import add_run_arguments, exit_with_one_sentence
from mmse.engine.run import train


def main() -> None:
    parser = argparse.ArgumentParser(description='Train a detector or a segmenter')
    add_run_arguments(parser)
    parser.add_argument(
        '--attention-lr-mult',
        type=float,
        metavar='FACTOR',
        help='learning rate of the attention over that of the layers beside it',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision on the GPU')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a name, from the latest in the work dir',
    )
    train(parser.parse_args())


if __name__ == '__main__':
    exit_with_one_sentence(main)
