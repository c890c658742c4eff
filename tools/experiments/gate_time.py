"""What a hardsigmoid gate saves on a CPU: the time of a backbone in onnxruntime, float and int8.

SE-ResNets that differ in their gate alone are exported and timed in one process, in turn, on one
thread; a plain ResNet beside them says what the whole attention costs. ``results/gate_time.json``
holds, for each depth and precision, the median over the rounds of the time over that with sigmoid,
and its quartiles.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from int8 import quantise

from mmse.export.onnx import export_onnx
from mmse.models import SEResNet
from mmse.utils.files import write_json

RESULTS = Path('results/gate_time.json')
ATTENTIONS: dict[str, Any] = {
    'sigmoid': {'preset': 'se'},
    'hardsigmoid': {'preset': 'se', 'gate': 'hardsigmoid'},
    'plain': None,
}
SIZE = 1, 224, 224  # batch, height, width
CALIBRATION, ROUNDS = 8, 41


def files_of(depth: int, folder: Path) -> dict[tuple[str, str], Path]:
    """Export every network, and quantise it to int8; files by precision and attention."""
    files = {}
    batch, height, width = SIZE
    for name, attention in ATTENTIONS.items():
        torch.manual_seed(0)
        net = SEResNet(depth, attention=attention).eval()
        exact = files['float', name] = folder / f'{depth}_{name}.onnx'
        export_onnx(net, exact, [SIZE], fold=True)
        images = (torch.randn(batch, 3, height, width).numpy() for _ in range(CALIBRATION))
        files['int8', name] = folder / f'{depth}_{name}_int8.onnx'
        quantise(exact, files['int8', name], images)
    return files


def ratios(sessions: dict[str, onnxruntime.InferenceSession]) -> dict[str, dict[str, float]]:
    """Time of each network over that with sigmoid, one ratio a round; median and quartiles."""
    batch, height, width = SIZE
    images = {'images': torch.randn(batch, 3, height, width).numpy()}
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for i in range(ROUNDS + 1):
        times = {}
        names = list(sessions)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = time.perf_counter()
            sessions[name].run(None, images)
            times[name] = time.perf_counter() - began
        if i:  # the first is to warm up
            for name, seconds in times.items():
                found[name].append(seconds / times['sigmoid'])
    rows = {}
    for name, values in found.items():
        low, _, high = statistics.quantiles(values, n=4)
        rows[name] = {'median': statistics.median(values), 'low': low, 'high': high}
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    results: dict[str, Any] = {}
    for depth in (18, 50):
        with TemporaryDirectory() as folder:
            files = files_of(depth, Path(folder))
            for precision in ('float', 'int8'):
                sessions = {
                    name: onnxruntime.InferenceSession(
                        files[precision, name], options, providers=['CPUExecutionProvider']
                    )
                    for name in ATTENTIONS
                }
                results[f'R{depth} {precision}'] = rows = ratios(sessions)
                print(f'R{depth} {precision}', rows, flush=True)
    write_json(RESULTS, results)


if __name__ == '__main__':
    main()
