"""A page about the gates of a trained model."""

import base64
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mmcv
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmse.engine.build import build_model, load_trained
from mmse.engine.config.own_data import innermost
from mmse.engine.preflight import preflight
from mmse.gates import figures
from mmse.gates.collect import Collected, collect, energies
from mmse.gates.watch import attentions, learned_scalars
from mmse.utils.errors import UserError

CAPTIONS = {
    'distributions': (
        'How open are the gates?',
        'Median (dot), quartiles (bar) and range (line) over images and channels, by block; above, '
        'the share of gates below 0.05 or above 0.95.',
    ),
    'classes': (
        'Which channels open for which class?',
        'The mean gate over the images of a class less that over the classes, in the last block '
        'of each stage. In detection an image belongs to a class of which it has a box; in '
        'segmentation it counts with the share of its area. Above each map: how far a gate moves '
        'between classes at most, to be read against 0 to 1.',
    ),
    'learned': (
        'What did the learned scalars become?',
        'By block: alpha of residual gating, the temperature T, the weight of the average squeeze.',
    ),
    'energy': (
        'What does recalibration do to an image?',
        'Root mean square over the channels of the last residual branch of each stage, before and '
        'after the gate; every map has a scale of its own.',
    ),
}


def inspect(
    cfg: Config, checkpoint: str, out: Path, images: Sequence[str] | None, limit: int
) -> Path:
    """Write ``gates.html`` and its figures.

    Args:
        cfg: The full config of the model.
        checkpoint: Its checkpoint.
        out: The folder for the page and the PNGs.
        images: Image files; None for the validation images of the config.
        limit: How many validation images to use at most.

    Returns:
        The page.

    Raises:
        UserError: The model has no attention, the checkpoint does not belong to it, or the data are
            not there.
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
        classes, batches = (), [_read(cfg, image) for image in images]
    collected = collect(model, batches, tuple(classes))
    first = batches[0]['data_samples'][0].img_path
    drawn = {
        'distributions': figures.draw_distributions(collected),
        'classes': figures.draw_classes(collected) if collected.weights.any() else None,
        'learned': figures.draw_learned(scalars),
        'energy': figures.draw_energies(
            mmcv.imread(first, channel_order='rgb'), energies(model, batches[0])
        ),
    }
    return _write(out, drawn, collected, cfg, checkpoint, model)


def _read(cfg: Config, image: str) -> dict[str, Any]:
    """One image through the validation pipeline, without annotations, as a batch."""
    if not Path(image).is_file():
        raise UserError(f'there is no image {image}')
    pipeline = innermost(cfg.val_dataloader.dataset)['pipeline']
    steps = [step for step in pipeline if 'Annotations' not in step['type']]
    item = Compose([TRANSFORMS.build(step) for step in steps])({'img_path': image, 'img_id': 0})
    return {'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}


def _in_words(model: nn.Module) -> str:
    """The attention of the blocks, each kind once for the blocks in a row that have it."""
    # Behind the number of channels, which differs from stage to stage.
    texts = [(name, a.extra_repr().partition(', ')[2]) for name, a in attentions(model)]
    runs = []
    for text, group in groupby(texts, key=lambda item: item[1]):
        names = [name for name, _ in group]
        runs.append(
            f'{names[0]} to {names[-1]}: {text}' if len(names) > 1 else f'{names[0]}: {text}'
        )
    return '; '.join(runs)


def _write(
    out: Path,
    drawn: dict[str, Figure | None],
    collected: Collected,
    cfg: Config,
    checkpoint: str,
    model: nn.Module,
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, figure in drawn.items():
        if figure is None:
            continue
        file = out / f'{name}.png'
        part = out / f'{name}.part.png'
        figure.savefig(part, dpi=130, facecolor='white')
        plt.close(figure)
        part.replace(file)
        title, caption = CAPTIONS[name]
        image = base64.b64encode(file.read_bytes()).decode()
        shown.append({'title': title, 'caption': caption, 'image': image})
    environment = Environment(
        loader=PackageLoader('mmse.gates'), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template('gates.html.jinja').render(
        name=Path(cfg.filename or 'the model').stem,
        checkpoint=checkpoint,
        images=len(collected.weights),
        attention=_in_words(model),
        figures=shown,
    )
    page = out / 'gates.html'
    part = out / 'gates.html.part'
    part.write_text(text, encoding='utf-8')
    part.replace(page)
    return page
