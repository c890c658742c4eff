"""What only a GPU can show: are the fused paths right there, and what do they cost?

``python tools/experiments/gpu.py`` runs the tests that need a GPU, then times a plain ResNet-50 and
full attention side by side (by torch's operations, by Triton kernels, with recomputation, and
timm's SE), the most wanted first, until twenty minutes are over. It writes everything to
``results/gpu/`` and prints a report in Markdown, which is welcome in an issue. Measurements whose
files are there are not repeated.
"""

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmse.benchmark.compare import environment, run
from mmse.benchmark.networks import FULL
from mmse.benchmark.records import Settings
from mmse.benchmark.tables import name_of, table, write
from mmse.engine.cli import exit_with_one_sentence

RESULTS = Path('results/gpu')
ONLY = [FULL, f'{FULL}, kernels', f"{FULL}, recompute='norms'", 'timm seresnet']
SIZES = ((512, 512), (224, 224), (800, 1333))
BATCHES = {(224, 224): 32, (512, 512): 8, (800, 1333): 2}


def measurements(device: str) -> Iterator[Settings]:
    """The measurements, most wanted first."""
    common: dict[str, Any] = {'device': device, 'only': ONLY, 'rounds': 9}
    layouts = ({}, {'channels_last': True})
    for size, layout in itertools.product(SIZES[:1], layouts):
        for dtype in ('float32', 'bfloat16', 'float16'):
            yield Settings(size=size, batch=BATCHES[size], dtype=dtype, **layout, **common)
    detector = {**common, 'only': None, 'detector': True, 'size': (800, 1344), 'rounds': 5}
    yield Settings(**detector)
    yield Settings(dtype='bfloat16', **detector)
    for size, layout in itertools.product(SIZES, layouts):
        for norm_eval, dtype in itertools.product((False, True), ('bfloat16', 'float32')):
            batch = BATCHES[size]
            yield Settings(
                size=size, batch=batch, dtype=dtype, norm_eval=norm_eval, **layout, **common
            )
    for dtype, layout in itertools.product(('bfloat16', 'float32'), layouts):
        yield Settings(size=SIZES[0], batch=8, dtype=dtype, compile=True, **layout, **common)


def tested() -> str:
    """The last line of the tests that need a GPU."""
    command = [sys.executable, '-m', 'pytest', '-q', '--no-cov', '-m', 'gpu', 'tests/models']
    done = subprocess.run(command, capture_output=True, text=True)
    (RESULTS / 'tests.txt').write_text(done.stdout + done.stderr, encoding='utf-8')
    return (done.stdout.strip().splitlines() or ['no output'])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--minutes', type=float, default=20, help='start nothing after these')
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    facts = ', '.join(f'{key} {value}' for key, value in environment().items() if value)
    report = ['# On a GPU', facts, f'Tests: {tested()}']
    left_out = []
    for name, settings in {name_of(s): s for s in measurements(args.device)}.items():
        file = RESULTS / f'{name}.md'
        if not file.is_file():
            if time.monotonic() > until:
                left_out.append(name)
                continue
            try:
                result = run(settings)
            except (RuntimeError, ValueError) as error:  # out of memory, or not for this device
                report.append(f'## {name}\n\n{str(error).splitlines()[0]}')
                continue
            write(result, RESULTS)
            print(table(result), flush=True)
        report.append('\n'.join(file.read_text(encoding='utf-8').splitlines()).replace('# ', '## '))
    if left_out:
        report.append(f'Not measured for want of time: {", ".join(left_out)}.')
    text = '\n\n'.join(report)
    (RESULTS / 'report.md').write_text(text + '\n', encoding='utf-8')
    print(text)


if __name__ == '__main__':
    exit_with_one_sentence(main)
