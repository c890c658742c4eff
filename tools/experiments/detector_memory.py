"""What a Faster R-CNN R50 keeps for the backward pass per image of 800x1344, by counted bytes.

``python tools/experiments/detector_memory.py`` writes ``results/benchmark/detector_memory.md`` and
``.json``. The first stage is frozen and norms keep their statistics, as mmdet trains it. Proposals
are those of seeded random weights. Needs 12 GB of memory, and no GPU.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from mmse.benchmark.compare import quiet
from mmse.benchmark.measure import saved_bytes
from mmse.benchmark.networks import build_detectors, detector_batch
from mmse.utils.files import write_json, write_text

RESULTS = Path('results/benchmark')
SIZE = (800, 1344)
BUDGET = 8 * 2**30
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    'plain ResNet': ('plain', {}),
    'full attention, `fused=False`': ('full', {'fused': False}),
    'full attention': ('full', {}),
    "full attention, `recompute='norms'`": ('full', {'recompute': 'norms'}),
    "full attention, `recompute='expand'`": ('full', {'recompute': 'expand'}),
    'full attention, `with_cp=True`': ('full', {'with_cp': True}),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    quiet()
    found = {}
    for name, (kind, changes) in CASES.items():
        detector = build_detectors(50, changes, ('plain', 'full'))[kind].train()
        batch = {**detector_batch(1, SIZE, torch.device('cpu')), 'mode': 'loss'}
        torch.manual_seed(0)
        found[name] = saved_bytes(detector, lambda d=detector, b=batch: d(**b))
    plain = found['plain ResNet']
    lines = ['| backbone | kept per image | over plain | images in 8 GiB |', '|---|---:|---:|---:|']
    for name, size in found.items():
        cells = (name, f'{size / 2**20:.0f} MiB', f'{size / plain:.3f}', str(BUDGET // size))
        lines.append('| ' + ' | '.join(cells) + ' |')
    text = '\n'.join(lines)
    write_json(RESULTS / 'detector_memory.json', {'size': SIZE, 'bytes': found})
    head = '# What a Faster R-CNN R50 keeps for the backward pass, 800x1344, float32'
    write_text(RESULTS / 'detector_memory.md', f'{head}\n\n{text}\n')
    print(text)


if __name__ == '__main__':
    main()
