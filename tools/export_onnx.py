"""Export to ONNX: ``python tools/export_onnx.py CONFIG CHECKPOINT out.onnx``."""

import argparse
from pathlib import Path

from mmse.engine.cli import add_config_arguments, exit_with_one_sentence
from mmse.engine.config import load_config
from mmse.export.onnx import PARTS, TOLERANCE, export_onnx, load_part, parity
from mmse.utils.errors import UserError


def size(text: str) -> tuple[int, int, int]:
    try:
        batch, height, width = map(int, text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text}: write BATCHxHEIGHTxWIDTH') from None
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
        help='sizes to compare with onnxruntime; the first is traced',
    )
    args = parser.parse_args()
    module = load_part(load_config(args.config, args.cfg_options), args.checkpoint, args.part)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(module, args.out, args.sizes[0], args.fold)
    differences = parity(module, args.out, args.sizes)
    for (batch, height, width), difference in differences.items():
        print(f'{batch}x3x{height}x{width}: relative difference {difference:.1e}')
    if max(differences.values()) > TOLERANCE:
        raise UserError(f'{args.out} differs from the model by more than {TOLERANCE:g}')
    print(args.out)


if __name__ == '__main__':
    exit_with_one_sentence(main)
