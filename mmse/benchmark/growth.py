"""How the cost of attention depends on image size, batch and depth: one plot of ratios to plain."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from mmse.benchmark.compare import Settings, quiet, run
from mmse.benchmark.measure import saved_bytes
from mmse.benchmark.networks import FULL, PLAIN, build_backbones
from mmse.benchmark.tables import replace_file
from mmse.utils.errors import UserError

AXES: dict[str, tuple[Any, ...]] = {
    'size': ((224, 224), (480, 640), (800, 1333)),
    'batch': (1, 2, 8),
    'depth': (18, 50, 101),
}
CENTRE = {'size': (480, 640), 'batch': 2, 'depth': 50}


def memory_grid() -> list[dict[str, Any]]:
    """Bytes kept for backward over plain's, for each combination of size, batch and depth.

    Counted on the meta device, where tensors have sizes and no contents: exact, whatever fits.
    """
    cells = []
    for values in product(*AXES.values()):
        cell = dict(zip(AXES, values, strict=True))
        nets, _ = build_backbones([FULL], cell['depth'])
        x = torch.empty(cell['batch'], 3, *cell['size'], device='meta')
        kept = {}
        for name in (PLAIN, FULL):
            net = nets[name].to('meta')
            net.train()
            kept[name] = saved_bytes(net, partial(net, x))
        cells.append({**cell, 'saved_bytes': kept[FULL], 'saved': kept[FULL] / kept[PLAIN]})
    return cells


def time_cells(settings: Settings) -> Iterator[dict[str, Any]]:
    """Times over plain's, from the centre along one axis at a time; the centre comes once."""
    done = set()
    for axis, values in AXES.items():
        for value in values:
            cell = {**CENTRE, axis: value}
            if tuple(cell.values()) in done:
                continue
            done.add(tuple(cell.values()))
            # The less a round takes, the more of them: small cells are the noisiest.
            rounds = settings.rounds * max(1, round(_pixels(CENTRE) / _pixels(cell)))
            result = run(replace(settings, only=[FULL], rounds=rounds, **cell))
            row = next(row for row in result.to_dict()['rows'] if row['name'] == FULL)
            yield {**cell, 'inference': row['inference'], 'training': row['training']}


def _pixels(cell: dict[str, Any]) -> int:
    height, width = cell['size']
    return int(cell['batch'] * height * width)


def write_growth(settings: Settings, folder: Path) -> list[Path]:
    """Measure, and write ``growth.json`` and ``growth.png``; says which files these are.

    Raises:
        UserError: A setting cannot be honoured.
    """
    settings.check()
    if settings.norm_eval:
        raise UserError('--growth counts bytes with statistics of the batch: leave out --norm-eval')
    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {'memory': memory_grid(), 'time': []}
    files = [folder / 'growth.json', folder / 'growth.png']
    for cell in time_cells(settings):
        found['time'].append(cell)
        replace_file(files[0], lambda file: file.write_text(json.dumps(found, indent=1) + '\n'))
    replace_file(files[1], lambda file: draw(found, file))
    return files


def draw(found: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Ratios to plain over each axis: times with quartiles, memory of all combinations."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout='constrained')
    for axes, (axis, values) in zip(panels, AXES.items(), strict=True):
        places = [{**CENTRE, axis: value} for value in values]
        cells = [next(c for c in found['time'] if c.items() >= place.items()) for place in places]
        for kind, shift in (('training', -0.08), ('inference', 0.08)):
            ratios = [cell[kind] for cell in cells]
            medians = [r['median'] for r in ratios]
            spread = [
                [r['median'] - r['low'] for r in ratios],
                [r['high'] - r['median'] for r in ratios],
            ]
            x = [i + shift for i in range(len(values))]
            label = {'training': 'time of a training step', 'inference': 'time of inference'}[kind]
            axes.errorbar(x, medians, spread, marker='o', capsize=3, label=label)
        saved = [[c['saved'] for c in found['memory'] if c[axis] == v] for v in values]
        for place, dots in enumerate(saved):
            once = 'kept for backward' if place == 0 else None
            axes.plot([place] * len(dots), dots, 'k_', markersize=12, label=once)
        names = ['x'.join(map(str, v)) if axis == 'size' else str(v) for v in values]
        axes.set_xticks(range(len(values)), names)
        axes.set_xlabel({'size': 'image, pixels', 'batch': 'images', 'depth': 'depth'}[axis])
        axes.axhline(1, color='black', linewidth=0.8)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.grid(axis='y', alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('full attention over plain ResNet')
    panels[0].legend(frameon=False, fontsize='small')
    figure.savefig(file, dpi=130, format='png')
    plt.close(figure)
