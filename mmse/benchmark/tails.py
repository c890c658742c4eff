"""The tails whose traffic is compared, and the table of it."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from mmse.benchmark.peers import import_peers
from mmse.benchmark.traffic import SHAPE, Case, Tail, Traffic, count
from mmse.models import ChannelAttention
from mmse.models.fused import fused_tail
from mmse.models.kernel_support import why_no_kernels
from mmse.models.settings import PRESETS
from mmse.utils.files import write_json, write_text


def composed(attention: nn.Module | None) -> Tail:
    """The tail as mmdet, timm and mmpretrain write it: each module in turn, in place at the end."""

    def tail(y: Tensor, shortcut: Tensor, norm: nn.Module) -> Tensor:
        out = norm(y) if attention is None else attention(norm(y))
        return out.add_(shortcut).relu_()  # type: ignore[no-any-return]

    return tail


def fused(attention: ChannelAttention, kernels: bool = False) -> Tail:
    """The tail as one function."""
    return lambda y, shortcut, norm: fused_tail(y, shortcut, norm, attention, kernels=kernels)  # type: ignore[arg-type]


def _peers(channels: int) -> dict[str, nn.Module]:
    """The attention of other packages, those that are installed."""
    missing, found = import_peers(), {}
    if 'timm' not in missing:
        from timm.layers.squeeze_excite import SEModule

        found['timm SE'] = SEModule(channels)
        found['timm SE, max pool'] = SEModule(channels, add_maxpool=True)
    if 'mmpretrain' not in missing:
        from mmpretrain.models.utils import SELayer

        found['mmpretrain SE'] = SELayer(channels)
    return found


def tails() -> dict[str, tuple[Tail, nn.Module | None]]:
    """Every tail that is compared, with the module that it uses, by name."""
    channels = SHAPE[1]
    found: dict[str, tuple[Tail, nn.Module | None]] = {'plain ResNet': (composed(None), None)}
    found |= {name: (composed(module), module) for name, module in _peers(channels).items()}
    for preset in PRESETS:
        module = ChannelAttention(channels, preset=preset)
        found[f'mmse {preset}, not fused'] = composed(module), module
        found[f'mmse {preset}'] = fused(module), module
        if why_no_kernels('cuda') is None:
            found[f'mmse {preset}, kernels'] = fused(module, kernels=True), module
    return found


CASES = {
    'training, fp32': Case('training'),
    'norm_eval, fp32': Case('norm_eval'),
    'inference, fp32': Case('inference'),
    'training, fp32, channels_last': Case('training', channels_last=True),
    'training, AMP': Case('training', amp=True),
    'training, AMP, channels_last': Case('training', amp=True, channels_last=True),
    'norm_eval, AMP, channels_last': Case('norm_eval', amp=True, channels_last=True),
    'inference, AMP, channels_last': Case('inference', amp=True, channels_last=True),
    'training on a CPU': Case('training', device='cpu'),
    'inference on a CPU': Case('inference', device='cpu'),
}


def count_all() -> dict[str, dict[str, Traffic]]:
    """The traffic of every tail in every case, by the names of both."""
    return {
        name: {
            label: count(tail, nn.BatchNorm2d(SHAPE[1]), module, case)
            for label, case in CASES.items()
            if not (case.device == 'cpu' and name.endswith('kernels'))
        }
        for name, (tail, module) in tails().items()
    }


def traffic_table(counts: dict[str, dict[str, Traffic]]) -> str:
    """Markdown; a cell has the maps read or written, the operations, and the maps kept."""
    lines = ['| ' + ' | '.join(('tail', *CASES)) + ' |', '|---|' + '---:|' * len(CASES)]
    for name, row in counts.items():
        found = [row.get(label) for label in CASES]
        cells = [f'{t.maps:g} / {t.launches} / {t.kept:.2f}' if t else '' for t in found]
        lines.append('| ' + ' | '.join((name, *cells)) + ' |')
    return '\n'.join(lines)


def write_traffic(folder: Path) -> tuple[str, list[Path]]:
    """Count everything, write ``traffic.json`` and ``traffic.md``; the table and their paths."""
    counts = count_all()
    table = traffic_table(counts)
    files = [folder / 'traffic.json', folder / 'traffic.md']
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: {label: asdict(t) for label, t in row.items()} for name, row in counts.items()}
    write_json(files[0], {'torch': torch.__version__, 'tails': rows})
    head = (
        '# What the tail of one block moves\n\nNorm, attention, addition and ReLU, forward and, in '
        'training, backward: feature maps read or written / operations that reach a kernel / '
        "maps kept for the backward pass. Counted on a CPU with each device's branches; two "
        f'images; torch {torch.__version__}.'
    )
    write_text(files[1], f'{head}\n\n{table}\n')
    return table, files
