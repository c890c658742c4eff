"""A first batch, made as the training makes it: whole pipeline, collation, preprocessing."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS

from mmse.datasets.findings import size
from mmse.datasets.reading import Reading, reason
from mmse.utils.errors import UserError


def check_batch(
    cfg: Config,
    split: str,
    reading: Reading,
    wrapper: Mapping[str, Any] | None,
    shapes: Mapping[tuple[int, int], int],
) -> None:
    """Put images of the most different sizes through the pipeline and into a batch.

    Args:
        cfg: The full config.
        split: train, val or test.
        reading: The data set.
        wrapper: The config of the wrapper around it, whose pipeline counts if it mixes images.
        shapes: Sizes of images (width, height), each with the place of one image that has it.

    Raises:
        UserError: A transform fails, or the images do not fit into one batch.
    """
    items = [_item(reading, wrapper, index) for index in _extremes(shapes, len(reading.items))]
    if not all(isinstance(item, dict) and hasattr(item.get('inputs'), 'shape') for item in items):
        return
    batch_size = cfg[f'{split}_dataloader'].get('batch_size', 1)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if preprocessor is None:
        return
    inputs = [item['inputs'] for item in items]
    mean = preprocessor.get('mean')
    channels = sorted({tensor.shape[0] for tensor in inputs})
    if mean is not None and len(mean) > 1 and channels[-1] not in (1, len(mean)):
        raise UserError(
            f'{reading.place}: images have {channels[-1]} channels as they are loaded, but '
            f'model.data_preprocessor.mean has {len(mean)} values: give mean and std as many, or '
            f'set {reading.head.place}.color_type=color'
        )
    batches = [items] if batch_size > 1 else [[item] for item in items]
    try:
        model = MODELS.build(preprocessor)
        for batch in batches:
            given = model(pseudo_collate(batch), training=split == 'train')
    except Exception as error:  # a preprocessor is anybody's code
        sizes = sorted({(tensor.shape[2], tensor.shape[1]) for tensor in inputs})
        if len(sizes) == 1 or batch_size == 1:
            raise UserError(
                f'{reading.place}: no batch can be made of its images: {reason(error)}'
            ) from error
        advice = (
            'put a Resize or RandomCrop in, or set model.data_preprocessor.size=(height, width)'
            if split == 'train'
            else f'set {split}_dataloader.batch_size=1'
        )
        raise UserError(
            f'images leave {reading.place}.pipeline in different sizes '
            f'({", ".join(map(size, sizes))}), which do not fit into one batch of {batch_size}: '
            + advice
        ) from error
    _check_channels(cfg, reading, given)


def _check_channels(cfg: Config, reading: Reading, given: Any) -> None:
    """Compare the channels of preprocessed images with those that the backbone takes."""
    backbone = cfg.model.get('backbone') or {}
    taken = backbone.get('in_channels', 3 if 'ResNe' in str(backbone.get('type')) else None)
    shape: tuple[int, ...] = getattr(
        given.get('inputs') if isinstance(given, dict) else None, 'shape', ()
    )
    if taken is None or len(shape) != 4 or shape[1] == taken:
        return
    raise UserError(
        f'{reading.place}: images have {shape[1]} channels as they are loaded and '
        f'normalised, but model.backbone takes {taken}: set model.backbone.in_channels='
        f'{shape[1]}, or the color_type of {reading.head.place}'
    )


def _item(reading: Reading, wrapper: Mapping[str, Any] | None, index: int) -> Any:
    dataset = reading.dataset
    try:
        if wrapper is not None and 'pipeline' in wrapper:
            dataset = DATASETS.build({**wrapper, 'dataset': reading.dataset})
        return dataset[index]
    except Exception as error:  # transforms are anybody's code
        name = reading.items[index].get('img_path')
        where = _failing_step(reading, index) or f'{reading.place}.pipeline'
        raise UserError(f'{where} fails on {name}: {reason(error)}') from error


def _failing_step(reading: Reading, index: int) -> str | None:
    """The transform that fails on an image, if it does so again."""
    item = reading.dataset.get_data_info(index)
    for number, step in enumerate(reading.dataset.pipeline.transforms):
        try:
            item = step(item)
        except Exception:  # the caller has it
            return f'{reading.place}.pipeline.{number} ({type(step).__name__})'
        if item is None:
            return None
    return None


def _extremes(shapes: Mapping[tuple[int, int], int], count: int) -> Sequence[int]:
    """Places of the smallest, largest, widest and highest image; at least two if there are two."""
    if not shapes:
        return range(min(2, count))
    by = [
        min(shapes, key=lambda s: s[0] * s[1]),
        max(shapes, key=lambda s: s[0] * s[1]),
        max(shapes, key=lambda s: s[0] / s[1]),
        min(shapes, key=lambda s: s[0] / s[1]),
    ]
    places = list(dict.fromkeys(shapes[one] for one in by))
    return places if len(places) > 1 else [*places, count - 1][: min(2, count)]
