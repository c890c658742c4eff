"""Export a whole detector to ONNX: ``python tools/export_detector.py CONFIG CHECKPOINT IMAGE OUT``.

mmdeploy does the work; the file that it makes needs onnxruntime alone.
"""

import argparse
from pathlib import Path

from mmse.engine.cli import add_config_arguments, exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.export.detector import export_detector


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a whole detector to ONNX, by mmdeploy')
    add_config_arguments(parser)
    parser.add_argument('checkpoint')
    parser.add_argument('image', help='an image to trace with and to compare on')
    parser.add_argument('out', type=Path, help='the ONNX file to write')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    for agreement in export_detector(cfg, args.checkpoint, args.image, args.out):
        height, width, boxes, found, distance, _ = agreement
        result = f'{found} of {boxes} boxes are found within {distance:.1g} pixels'
        print(f'{height}x{width}: {result if boxes else "no box has a score above 0.3"}')
    print(args.out)


if __name__ == '__main__':
    exit_with_one_sentence(main)
