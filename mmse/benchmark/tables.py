"""A benchmark as JSON, as a Markdown table and as a chart."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt

from mmse.benchmark.compare import Result, Row, Settings
from mmse.benchmark.measure import Ratio

HEADINGS = (
    'network',
    'parameters',
    'MACs',
    'inference',
    'over plain',
    'training step',
    'over plain',
    'kept for backward',
    'over plain',
)


def name_of(settings: Settings) -> str:
    """File name, without ending, that tells the settings."""
    height, width = settings.size
    parts = [
        'detector' if settings.detector else 'backbone',
        f'r{settings.depth}',
        f'{settings.batch}x{height}x{width}',
        settings.device,
        settings.dtype,
        *(['channels_last'] if settings.channels_last else []),
        *(['compiled'] if settings.compile else []),
        *(['norm_eval'] if settings.norm_eval else []),
        *(settings.modes if len(settings.modes) == 1 else []),
    ]
    return '_'.join(parts)


def table(result: Result) -> str:
    """The rows as a Markdown table; ratios with their quartiles."""
    lines = ['| ' + ' | '.join(HEADINGS) + ' |', '|---|' + '---:|' * (len(HEADINGS) - 1)]
    for row in result.rows:
        lines.append('| ' + ' | '.join(_cells(row)) + ' |')
    return '\n'.join(lines)


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f'{row.parameters / 1e6:.1f} M',
        '' if row.macs is None else f'{row.macs / 1e9:.2f} G',
        _milliseconds(row.inference_ms),
        _spread(row.inference),
        _milliseconds(row.training_ms),
        _spread(row.training),
        '' if row.saved_bytes is None else f'{row.saved_bytes / 2**20:.1f} MiB',
        '' if row.saved is None else f'{row.saved:.3f}',
    ]


def _milliseconds(value: float | None) -> str:
    return '' if value is None else f'{value:.1f} ms'


def _spread(ratio: Ratio | None) -> str:
    return '' if ratio is None else f'{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})'


def write(result: Result, folder: Path) -> list[Path]:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.png``; says which files these are."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / name_of(result.settings)
    circumstances = [f'{key} {value}' for key, value in result.environment.items() if value]
    text = '\n\n'.join(
        [
            f'# {stem.name}',
            'Ratios: median and quartiles over rounds of all networks side by side in one process.',
            table(result),
            *result.left_out,
            ', '.join(circumstances) + f'; {result.settings.rounds} rounds',
        ]
    )
    files = [stem.with_name(stem.name + ending) for ending in ('.json', '.md', '.png')]
    data = json.dumps(result.to_dict(), indent=1)
    replace_file(files[0], lambda file: file.write_text(data + '\n', encoding='utf-8'))
    replace_file(files[1], lambda file: file.write_text(text + '\n', encoding='utf-8'))
    replace_file(files[2], lambda file: _chart(result, file))
    return files


def replace_file(file: Path, write_to: Callable[[Path], object]) -> None:
    """Write beside the file and rename, so that it is never half-written."""
    part = file.with_name(file.name + '.part')
    write_to(part)
    os.replace(part, file)


def _chart(result: Result, file: Path) -> None:
    rows = result.rows[::-1]
    titles = {'inference': 'inference', 'training': 'training step', 'saved': 'kept for backward'}
    kinds = [kind for kind in titles if any(getattr(row, kind) is not None for row in rows)]
    figure, panels = plt.subplots(
        1,
        len(kinds),
        figsize=(3.6 * len(kinds) + 2, 0.32 * len(rows) + 1.2),
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        for y, row in enumerate(rows):
            value = getattr(row, kind)
            colour = 'tab:blue' if row.name.startswith('mmse') else 'tab:gray'
            if isinstance(value, Ratio):
                axes.plot([value.low, value.high], [y, y], color=colour, linewidth=2)
                value = value.median
            axes.plot(value, y, 'o', color=colour, markersize=5)
        axes.axvline(1, color='black', linewidth=0.8)
        axes.set(title=titles[kind], xlabel='over the plain ResNet')
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='x', alpha=0.3)
    panels[0, 0].set_yticks(range(len(rows)), [row.name for row in rows])
    figure.savefig(file, dpi=130, format='png')
    plt.close(figure)
