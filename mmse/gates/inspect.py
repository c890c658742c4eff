"""The page that shows what the gates of a trained model do."""

from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import mmcv
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmse.engine.build import build_model, load_trained
from mmse.engine.images import image_batch
from mmse.engine.preflight import preflight
from mmse.gates import figures
from mmse.gates.collect import collect, energies
from mmse.gates.watch import attentions, learned_scalars
from mmse.pages.html import write_page
from mmse.pages.style import base64_of, styled, write_figure
from mmse.utils.errors import UserError

CAPTIONS = {
    'distributions': (
        'How open are the gates?',
        'Median (dot), quartiles (bar) and range (line) over images and channels, by block. The '
        'percentages above are the share of gates below 0.05 or above 0.95.',
    ),
    'classes': (
        'Which channels open for which class?',
        'Mean gate over the images of each class minus the mean over the classes, in the last '
        'block of each stage. In detection, an image counts for every class of which it shows a '
        'box; in segmentation, it counts for each class by its share of the labelled area. The '
        'titles say by how much a gate differs between classes at most; gates lie between 0 and 1.',
    ),
    'learned': (
        'Where did the learned scalars end?',
        'By block: alpha of residual gating, the temperature T, and the softmax weight of the '
        'average squeeze, each only where it is learned.',
    ),
    'energy': (
        'What does recalibration do to an image?',
        'Root mean square over the channels of the last residual branch of each stage, before and '
        'after recalibration. Each map has its own scale.',
    ),
}


def inspect(
    cfg: Config, checkpoint: str, out: Path, images: Sequence[str] | None, limit: int
) -> Path:
    """Run a trained model on images and write ``gates.html`` and its figures.

    Args:
        cfg: The full config of the model.
        checkpoint: The checkpoint file.
        out: The folder for the page and the PNGs; created if missing.
        images: Image files; None for the validation images of the config.
        limit: How many validation images to use at most, rounded up to whole batches.

    Returns:
        The page.

    Raises:
        UserError: The model has no attention, the checkpoint does not belong to the model, or the
            data are missing.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if images is None:
        model = preflight(cfg, ('val',), whole_checkpoint=True).module
    else:
        model = build_model(cfg).module
    if not any(attentions(model)):
        raise UserError('the model has no attention of mmse: there are no gates to look at')
    load_trained(cfg, checkpoint, model)
    scalars = {name: learned_scalars(attention) for name, attention in attentions(model)}
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    if images is None:
        loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
        classes = loader.dataset.metainfo['classes']
        batches = list(islice(loader, -(-limit // cfg.val_dataloader.batch_size)))
    else:
        classes = ()
        batches = [image_batch(cfg.val_dataloader.dataset, image) for image in images]
    collected = collect(model, batches, tuple(classes))
    image = mmcv.imread(batches[0]['data_samples'][0].img_path, channel_order='rgb')
    maps = energies(model, batches[0])
    out.mkdir(parents=True, exist_ok=True)
    with styled():
        drawn = {
            'distributions': figures.draw_distributions(collected),
            'classes': figures.draw_classes(collected) if collected.weights.any() else None,
            'learned': figures.draw_learned(scalars),
            'energy': figures.draw_energies(image, maps) if maps else None,
        }
        shown = [_write(name, figure, out) for name, figure in drawn.items() if figure is not None]
    values = {
        'name': Path(cfg.filename or 'the model').stem,
        'checkpoint': checkpoint,
        'images': len(collected.weights),
        'attention': _in_words(model),
        'figures': shown,
    }
    page = out / 'gates.html'
    write_page(page, 'mmse.gates', values)
    return page


def _write(name: str, figure: Figure, out: Path) -> dict[str, str]:
    """Write a figure as a PNG; what the page says of it and the PNG itself."""
    file = out / f'{name}.png'
    write_figure(figure, file)
    title, caption = CAPTIONS[name]
    return {'title': title, 'caption': caption, 'image': base64_of(file)}


def _in_words(model: nn.Module) -> str:
    """The attention of the blocks; neighbours with the same attention are named together."""
    # The text begins with the number of channels, which differs from stage to stage.
    texts = [(name, a.extra_repr().partition(', ')[2]) for name, a in attentions(model)]
    runs = []
    for text, group in groupby(texts, key=lambda item: item[1]):
        first, *others = [name for name, _ in group]
        runs.append(f'{first} to {others[-1]}: {text}' if others else f'{first}: {text}')
    return '; '.join(runs)
