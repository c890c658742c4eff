"""Export to ONNX: ``python tools/export_onnx.py CONFIG CHECKPOINT out.onnx``."""

import argparse
from pathlib import Path

from mmse.engine.cli import add_config_arguments, exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.export.onnx import Size, export_onnx
from mmse.export.parts import PARTS, input_channels, load_part


def size(text: str) -> Size:
    try:
        batch, height, width = map(int, text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text}: write BATCHxHEIGHTxWIDTH') from None
    if min(batch, height, width) < 1:
        raise argparse.ArgumentTypeError(f'{text}: every number must be at least 1')
    return batch, height, width


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a trained model or its backbone to ONNX')
    add_config_arguments(parser)
    parser.add_argument('checkpoint')
    parser.add_argument('out', type=Path, help='the ONNX file to write')
    parser.add_argument('--part', choices=PARTS, default='model')
    parser.add_argument(
        '--fold', action='store_true', help='put norms into convolutions and fold constants first'
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        metavar='BATCHxHEIGHTxWIDTH',
        default=[(1, 256, 256), (2, 192, 320), (3, 480, 640)],
        help='sizes to compare with onnxruntime; the first is traced. A dimension in which they '
        'differ is dynamic in the file, so one size makes a file of that size',
    )
    args = parser.parse_args()
    module = load_part(load_config(args.config, args.cfg_options), args.checkpoint, args.part)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    differences = export_onnx(module, args.out, args.sizes, args.fold)
    for (batch, height, width), difference in differences.items():
        images = f'{batch}x{input_channels(module)}x{height}x{width}'
        print(f'{images}: relative difference {difference:.1e}')
    print(args.out)


if __name__ == '__main__':
    exit_with_one_sentence(main)
