"""Convert weights between packages: ``python tools/convert_weights.py SRC DST --to timm``."""

import argparse

from mmse.checkpoints.convert import LAYOUTS, convert_file
from mmse.engine.cli import exit_with_one_sentence
from mmse.engine.config.swap import parse_attention


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Convert a ResNet's weights between mmse, mmpretrain, timm and plain ResNets"
    )
    parser.add_argument('src', help='checkpoint, of a backbone or of a whole model')
    parser.add_argument('dst', help='file to write, .pth or .safetensors')
    parser.add_argument('--to', choices=LAYOUTS, required=True, help='whose weights to write')
    parser.add_argument(
        '--attention',
        help="the attention of mmse's weights, a preset or KEY=VALUE,KEY=VALUE; "
        "needed where the file does not hold its training's config",
    )
    args = parser.parse_args()
    attention = parse_attention(args.attention) if args.attention else None
    conversion = convert_file(args.src, args.dst, args.to, attention)
    print(f'{args.dst}: {len(conversion.weights)} tensors, {conversion.source} to {args.to}')
    if conversion.attention is not None:
        print(f'for a backbone with attention={conversion.attention!r}')
    if dropped := conversion.dropped:
        print(f'{len(dropped)} not converted, such as {dropped[0]}: not of backbone or classifier')


if __name__ == '__main__':
    exit_with_one_sentence(main)
