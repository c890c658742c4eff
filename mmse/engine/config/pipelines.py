"""Steps of a data pipeline that depend on the data: sizes, and labels."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from mmse.engine.config.kinds import bare_name, leaves

Step = MutableMapping[str, Any]
RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize', 'FixScaleResize')


def set_scale(dataset: Step, scale: tuple[int, int], with_labels: bool) -> None:
    """Scale the images of a data set to another size.

    Every step that resizes gets it, those in wrappers included. A data set without one gets a
    ``Resize`` that keeps the aspect ratio.

    Args:
        dataset: A data set's config with its wrappers; changed in place.
        scale: (width, height) in pixels.
        with_labels: Whether an added ``Resize`` comes after the annotations are loaded, and scales
            them; mmseg evaluates label maps at their own size.
    """
    steps = [step for pipeline in _pipelines(dataset) for step in _steps(pipeline)]
    found = [step for step in steps if bare_name(step['type']) in RESIZES]
    for step in found:
        kind = bare_name(step['type'])
        if kind == 'RandomChoiceResize':
            step['scales'] = [scale]
            continue
        step.pop('scale_factor', None)
        step['scale'] = scale
        if kind == 'RandomResize':
            # One size is scaled by a ratio; between two sizes none was needed.
            step.setdefault('ratio_range', (1.0, 1.0))
    if found:
        return
    for leaf in leaves(dataset):
        loading = [
            index
            for index, step in enumerate(leaf['pipeline'])
            if bare_name(step['type']).startswith('Load')
            and (with_labels or 'Annotations' not in bare_name(step['type']))
        ]
        at = max(loading, default=-1) + 1
        resize = {'type': 'Resize', 'scale': scale, 'keep_ratio': True}
        leaf['pipeline'] = [*leaf['pipeline'][:at], resize, *leaf['pipeline'][at:]]


def zero_label(pipeline: Sequence[Step]) -> bool:
    """Whether a step of a pipeline leaves label 0 out."""
    return any(step.get('reduce_zero_label') for step in _steps(pipeline))


def labels_off(pipeline: list[Step], entirely: bool) -> None:
    """Let the data set say whether label 0 is left out, not the pipeline.

    Args:
        pipeline: Changed in place.
        entirely: Remove the steps that load label maps: there are none.
    """
    if entirely:
        pipeline[:] = [s for s in pipeline if bare_name(s['type']) != 'LoadAnnotations']
    for step in _steps(pipeline):
        step.pop('reduce_zero_label', None)


def load_by_colour(pipeline: list[Step], colours: Sequence[Sequence[int]]) -> None:
    """Load label maps whose colours stand for classes.

    Args:
        pipeline: Changed in place.
        colours: RGB in 0..255 for each class, in the order of the labels.
    """
    for step in _steps(pipeline):
        if bare_name(step['type']) == 'LoadAnnotations':
            step['type'] = 'mmse.LoadAnnotationsByColour'
            step['colours'] = [list(colour) for colour in colours]


def _pipelines(dataset: Step) -> Iterator[Any]:
    if 'pipeline' in dataset:
        yield dataset['pipeline']
    for inner in [*dataset.get('datasets', ()), *filter(None, [dataset.get('dataset')])]:
        yield from _pipelines(inner)


def _steps(node: Any) -> Iterator[Step]:
    """Every step, those inside other steps included."""
    if isinstance(node, MutableMapping):
        if 'type' in node:
            yield node
        for value in node.values():
            yield from _steps(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _steps(value)
