"""What the attention costs: ``python tools/benchmark.py`` measures backbones side by side."""

import argparse
from pathlib import Path

from mmse.benchmark.compare import run
from mmse.benchmark.growth import write_growth
from mmse.benchmark.records import DTYPES, MODES, Settings
from mmse.benchmark.tables import table, write
from mmse.benchmark.tails import write_traffic
from mmse.engine.cli import exit_with_one_sentence


def size(text: str) -> tuple[int, int]:
    parts = text.lower().split('x')
    if not all(part.isdigit() for part in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f'{text!r}: give HEIGHTxWIDTH or one number')
    return int(parts[0]), int(parts[-1])


def main() -> None:
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--depth', type=int, choices=(18, 34, 50, 101, 152), default=default.depth)
    parser.add_argument('--size', type=size, default=default.size, metavar='HEIGHTxWIDTH')
    parser.add_argument('--batch', type=int, default=default.batch)
    parser.add_argument('--dtype', choices=DTYPES, default=default.dtype)
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--compile', action='store_true', help='torch.compile every network')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=default.device)
    parser.add_argument('--rounds', type=int, default=default.rounds)
    parser.add_argument(
        '--only', nargs='+', help='measure only these networks, by name or part of a name'
    )
    parser.add_argument('--modes', nargs='+', choices=MODES, default=default.modes)
    parser.add_argument(
        '--norm-eval',
        action='store_true',
        help='batch norms keep their running statistics in training',
    )
    parser.add_argument(
        '--detector', action='store_true', help='measure a whole Faster R-CNN instead of backbones'
    )
    parser.add_argument(
        '--growth',
        action='store_true',
        help='plot full attention over plain at several sizes, batches and depths',
    )
    parser.add_argument(
        '--traffic',
        action='store_true',
        help='count the maps and launches of one block on CPUs and GPUs, without measuring time',
    )
    parser.add_argument('--out', type=Path, default=Path('results/benchmark'))
    args = vars(parser.parse_args())
    out, growth, traffic = (args.pop(name) for name in ('out', 'growth', 'traffic'))
    if traffic:
        text, files = write_traffic(out)
        print(text)
        print('written:', *files)
        return
    if growth:
        print('written:', *write_growth(Settings(**args), out))
        return
    result = run(Settings(**args))
    print(table(result), *result.left_out, sep='\n')
    print('written:', *write(result, out))


if __name__ == '__main__':
    exit_with_one_sentence(main)
