"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--show-dir DIR]``."""

import argparse

from mmse.engine.cli import add_run_arguments, exit_with_one_sentence
from mmse.engine.run import test


def main() -> None:
    parser = argparse.ArgumentParser(description='Evaluate a detector or a segmenter')
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='the checkpoint file to evaluate')
    parser.add_argument('--show-dir', help='draw ground truth and predictions into this folder')
    test(parser.parse_args())


if __name__ == '__main__':
    exit_with_one_sentence(main)
