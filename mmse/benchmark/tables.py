"""A benchmark as JSON, as a Markdown table and as a chart."""

from pathlib import Path

from matplotlib.figure import Figure

from mmse.benchmark.measure import Ratio
from mmse.benchmark.records import Result, Row, Settings
from mmse.pages.style import ACCENT, INK, styled, write_figure
from mmse.utils.files import write_json, write_text

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
    """The name of the files of a benchmark, without ending: its settings."""
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
    """The rows of a benchmark as a Markdown table; ratios with their quartiles."""
    peaks = any(row.peak_bytes is not None for row in result.rows)
    headings = (*HEADINGS, 'peak memory') if peaks else HEADINGS
    lines = ['| ' + ' | '.join(headings) + ' |', '|---|' + '---:|' * (len(headings) - 1)]
    for row in result.rows:
        lines.append('| ' + ' | '.join(_cells(row)[: len(headings)]) + ' |')
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
        '' if row.peak_bytes is None else f'{row.peak_bytes / 2**20:.0f} MiB',
    ]


def _milliseconds(value: float | None) -> str:
    return '' if value is None else f'{value:.1f} ms'


def _spread(ratio: Ratio | None) -> str:
    return '' if ratio is None else f'{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})'


def write(result: Result, folder: Path) -> list[Path]:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.png``, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / name_of(result.settings)
    circumstances = [f'{key} {value}' for key, value in result.environment.items() if value]
    text = '\n\n'.join(
        [
            f'# {stem.name}',
            'Ratios to the plain ResNet: median (quartiles) over rounds in which all networks run '
            'once, in one process.',
            table(result),
            *result.left_out,
            ', '.join(circumstances) + f'; {result.settings.rounds} rounds',
        ]
    )
    files = [stem.with_name(stem.name + ending) for ending in ('.json', '.md', '.png')]
    write_json(files[0], result.to_dict())
    write_text(files[1], text + '\n')
    with styled():
        write_figure(_chart(result), files[2])
    return files


def _chart(result: Result) -> Figure:
    rows = result.rows[::-1]
    titles = {'inference': 'inference', 'training': 'training step', 'saved': 'kept for backward'}
    kinds = [kind for kind in titles if any(getattr(row, kind) is not None for row in rows)]
    figure = Figure(figsize=(2.8 * len(kinds) + 2, 0.28 * len(rows) + 1))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)
    for axes, kind in zip(panels[0], kinds, strict=True):
        for y, row in enumerate(rows):
            value = getattr(row, kind)
            colour = ACCENT if row.name.startswith('mmse') else INK
            if isinstance(value, Ratio):
                axes.plot([value.low, value.high], [y, y], color=colour, linewidth=2)
                value = value.median
            axes.plot(value, y, 'o', color=colour, markersize=5)
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set(title=titles[kind], xlabel='ratio to the plain ResNet')
        axes.grid(axis='x')
    panels[0, 0].set_yticks(range(len(rows)), [row.name for row in rows])
    return figure
