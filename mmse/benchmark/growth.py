"""How the cost of attention grows with image size, batch and depth, as ratios to plain."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from mmse.benchmark.compare import quiet, run
from mmse.benchmark.measure import saved_bytes
from mmse.benchmark.networks import FULL, PLAIN, build_backbones
from mmse.benchmark.records import Settings
from mmse.pages.style import ACCENT, INK, styled, write_figure
from mmse.utils.errors import UserError
from mmse.utils.files import write_json

AXES: dict[str, tuple[Any, ...]] = {
    'size': ((224, 224), (480, 640), (800, 1333)),
    'batch': (1, 2, 8),
    'depth': (18, 50, 101),
}
CENTRE = {'size': (480, 640), 'batch': 2, 'depth': 50}


def memory_grid() -> list[dict[str, Any]]:
    """Bytes kept for the backward pass, for every combination of size, batch and depth.

    They are counted on the meta device, where tensors have a size but no contents, so that the
    counts are exact and no size is too large for the machine.

    Returns:
        One dict per combination: its ``size``, ``batch`` and ``depth``, the ``saved_bytes`` of full
        attention, and ``saved``, their ratio to those of the plain network.
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
    """Ratios of times to plain's, from ``CENTRE`` along one axis at a time; ``CENTRE`` comes once.

    Yields:
        One dict per cell: its ``size``, ``batch`` and ``depth``, and the ratios ``inference`` and
        ``training``, each with ``median``, ``low`` and ``high``.
    """
    done = set()
    for axis, values in AXES.items():
        for value in values:
            cell = {**CENTRE, axis: value}
            if tuple(cell.values()) in done:
                continue
            done.add(tuple(cell.values()))
            # Short rounds are the noisiest: the less there is to compute, the more of them.
            rounds = settings.rounds * max(1, round(_pixels(CENTRE) / _pixels(cell)))
            result = run(replace(settings, only=[FULL], rounds=rounds, **cell))
            row = next(row for row in result.to_dict()['rows'] if row['name'] == FULL)
            yield {**cell, 'inference': row['inference'], 'training': row['training']}


def _pixels(cell: dict[str, Any]) -> int:
    height, width = cell['size']
    return int(cell['batch'] * height * width)


def write_growth(settings: Settings, folder: Path) -> list[Path]:
    """Measure, write ``growth.json`` and ``growth.png``, and return their paths.

    Raises:
        UserError: The settings cannot be measured on this machine.
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
        write_json(files[0], found)
    with styled():
        write_figure(draw(found), files[1])
    return files


def draw(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Ratios to plain along each axis: times with quartiles, memory of every combination."""
    figure = Figure(figsize=(9, 3.2))
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (axis, values) in zip(panels, AXES.items(), strict=True):
        places = [{**CENTRE, axis: value} for value in values]
        cells = [next(c for c in found['time'] if c.items() >= place.items()) for place in places]
        for kind, shift, colour in (('training', -0.08, INK), ('inference', 0.08, ACCENT)):
            ratios = [cell[kind] for cell in cells]
            medians = [r['median'] for r in ratios]
            spread = [
                [r['median'] - r['low'] for r in ratios],
                [r['high'] - r['median'] for r in ratios],
            ]
            x = [i + shift for i in range(len(values))]
            label = {'training': 'time of a training step', 'inference': 'time of inference'}[kind]
            axes.errorbar(x, medians, spread, color=colour, marker='o', capsize=3, label=label)
        saved = [[c['saved'] for c in found['memory'] if c[axis] == v] for v in values]
        for place, dots in enumerate(saved):
            once = 'kept for backward' if place == 0 else None
            axes.plot([place] * len(dots), dots, '_', color=INK, markersize=12, label=once)
        names = ['x'.join(map(str, v)) if axis == 'size' else str(v) for v in values]
        axes.set_xticks(range(len(values)), names)
        axes.set_xlabel({'size': 'image size, pixels', 'batch': 'batch', 'depth': 'depth'}[axis])
        axes.axhline(1, color=INK, linewidth=0.8)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.grid(axis='y')
    panels[0].set_ylabel('full attention over plain ResNet')
    panels[0].legend(fontsize='small')
    return figure
