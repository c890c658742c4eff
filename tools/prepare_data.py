"""Turn public data sets, or boxes in Pascal VOC's layout, into what the configs read."""

import argparse
import sys
import time

from mmse.datasets.bccd import prepare_bccd
from mmse.datasets.camvid import prepare_camvid
from mmse.datasets.voc import prepare_voc
from mmse.utils.errors import UserError

_CONVERTERS = {'bccd': prepare_bccd, 'camvid': prepare_camvid, 'voc': prepare_voc}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dataset', choices=_CONVERTERS)
    parser.add_argument(
        '--src', required=True, help='clone of the public repository, or the folder; only read'
    )
    parser.add_argument('--dst', help='folder to write (default: data/<dataset>)')
    args = parser.parse_args(arguments)
    dst = args.dst or f'data/{args.dataset}'
    start = time.perf_counter()
    try:
        facts = _CONVERTERS[args.dataset](args.src, dst)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for split, counts in facts.items():
        listed = ', '.join(f'{count} {name.replace("_", " ")}' for name, count in counts.items())
        print(f'{split}: {listed}')
    print(f'{dst} is ready, in {time.perf_counter() - start:.1f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
