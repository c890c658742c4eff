"""A trained model on new images: from a command line to pictures and results."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from mmse.engine.inputs import Image, find_sources, images_of
from mmse.engine.predictor import Predictor, load_model
from mmse.engine.results import CocoResults, Pictures, choose, write_label_map
from mmse.engine.run import check_writable
from mmse.utils.errors import UserError
from mmse.utils.text import duration, name_some, nearest

DRAWN_SCORE = 0.4  # as in the pictures of tools/test.py
REPORT_EVERY = 5.0  # seconds


def predict(args: argparse.Namespace) -> None:
    """Predict images and videos, and say what was written where.

    Raises:
        UserError: The config, the checkpoint, a class or an input cannot be used, or no image
            could be read.
    """
    if args.batch_size < 1:
        raise UserError(f'--batch-size is {args.batch_size}: give 1 or more')
    check_writable(args.out, '--out')
    sources = find_sources(args.inputs)
    model = load_model(
        args.config,
        args.checkpoint,
        device=args.device,
        cfg_options=args.cfg_options,
        attention=args.attention,
    )
    chosen = _chosen(args.classes, model.classes)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    score = DRAWN_SCORE if args.score is None else args.score
    pictures = (
        None if args.no_draw else Pictures(out / 'pictures', model.inferencer.visualizer, score)
    )
    total = sum(1 if source.frames is None else source.frames for source in sources)
    done, failed, began = 0, [], time.monotonic()
    said = began
    with ExitStack() as stack:
        results = (
            stack.enter_context(CocoResults(out, model.classes)) if model.is_detector else None
        )
        for image, sample in _predictions(model, images_of(sources), args.batch_size):
            if isinstance(sample, str):
                failed.append(f'{image.source.path}: {sample}')
                continue
            choose(sample, args.score or 0.0, chosen)
            if results is not None:
                results.add(image, sample)
            else:
                _write_labels(image, sample, out / 'labels', model)
            if pictures is not None:
                pictures.add(image, sample)
            done += 1
            if (now := time.monotonic()) - said > REPORT_EVERY:
                said = now
                left = (now - began) / done * max(total - done - len(failed), 0)
                print_log(f'{done} of {total} images, {duration(left)} left', 'current')
        if pictures is not None:
            pictures.close()
        if not done:
            raise UserError(f'no image could be predicted: {failed[0] if failed else "none found"}')
    if failed:
        print_log(f'{len(failed)} images left out ({name_some(failed)})', 'current', level=30)
    lines = [f'{done} images predicted in {duration(time.monotonic() - began)}.']
    if results is not None:
        lines.append(f'{results.detections} detections: {out}/predictions.bbox.json')
        lines.append(f'images and classes: {out}/images.json')
    else:
        lines.append(f'label maps: {out}/labels')
    if pictures is not None:
        lines.append(f'pictures: {out}/pictures')
    print_log('\n'.join(lines), 'current')


def _predictions(
    model: Predictor, images: Iterator[Image], batch_size: int
) -> Iterator[tuple[Image, BaseDataElement | str]]:
    """Every image with its prediction, or with why there is none."""
    batch: list[Image] = []
    for image in images:
        batch.append(image)
        if len(batch) == batch_size:
            yield from zip(batch, _predict(model, batch), strict=True)
            batch = []
    if batch:
        yield from zip(batch, _predict(model, batch), strict=True)


def _predict(model: Predictor, batch: Sequence[Image]) -> list[BaseDataElement | str]:
    try:
        return list(model([image.content for image in batch], batch_size=len(batch)))
    except Exception as error:
        if len(batch) == 1:  # one file that cannot be read does not end the others
            return [f'{type(error).__name__}: {" ".join(str(error).split())[:200]}']
    # One of them cannot be read, a segmenter cannot stack their sizes, or the memory is too small.
    return [result for image in batch for result in _predict(model, [image])]


def _chosen(names: Sequence[str] | None, classes: Sequence[str]) -> list[int]:
    if names is None:
        return list(range(len(classes)))
    for name in names:
        if name not in classes:
            raise UserError(
                f'--classes {name}: the model has no such class{nearest(name, classes)}'
            )
    return [classes.index(name) for name in names]


def _write_labels(image: Image, sample: BaseDataElement, folder: Path, model: Predictor) -> None:
    path = folder / image.source.out
    if image.frame is None:
        path = path.with_name(f'{path.name}.png')
    else:
        path = path / f'{image.frame:06}.png'
    write_label_map(sample.pred_sem_seg.data.squeeze(0).numpy(), path, model.palette)
