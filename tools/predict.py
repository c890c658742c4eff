"""Predict new images: ``python tools/predict.py CONFIG CHECKPOINT INPUT... --out FOLDER``."""

import argparse

from mmse.engine.cli import add_config_arguments, exit_with_one_sentence
from mmse.engine.predict import predict


def main() -> None:
    parser = argparse.ArgumentParser(description='Run a trained model on new images and videos')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='the checkpoint file; the class names come from it')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT', help='images, videos, folders of them, or globs'
    )
    parser.add_argument('--out', required=True, help='folder for pictures and results')
    parser.add_argument('--attention', metavar='PRESET|KEY=VALUE,...', help='as for train.py')
    parser.add_argument(
        '--score',
        type=float,
        help='leave out detections below it; by default results have all that the model gives, '
        'and pictures those from 0.4',
    )
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='keep these classes only')
    parser.add_argument('--no-draw', action='store_true', help='write results, no pictures')
    parser.add_argument('--device', help='such as cuda:1 or cpu; default: a GPU if there is one')
    parser.add_argument('--batch-size', type=int, default=1, help='images in one forward pass')
    predict(parser.parse_args())


if __name__ == '__main__':
    exit_with_one_sentence(main)
