"""Base configs whose training needs more than ``own_data`` can say."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS

from mmse.engine.config.kinds import bare_name, class_of
from mmse.utils.errors import UserError

# Steps that load what a COCO file of boxes and masks, or a folder of label maps, does not have.
OTHERS = {
    'LoadPanopticAnnotations': 'panoptic label maps',
    'LoadTrackAnnotations': 'tracks in videos',
    'LoadProposals': 'proposals',
    'LoadDepthAnnotation': 'depth maps',
    'LoadMultipleRSImageFromFile': 'pairs of images',
}


def check_base(
    loader: Mapping[str, Any], dataset: Mapping[str, Any], place: str, scope: str
) -> None:
    """Refuse a base that trains on other annotations than boxes, masks and label maps.

    Args:
        loader: A data loader of the config.
        dataset: The data set in its wrappers.
        place: What the loader is called in errors.
        scope: mmdet or mmseg.

    Raises:
        UserError: It says what the base needs.
    """
    needed = None
    if 'MultiSource' in str(loader.get('sampler')):
        needed = 'images without labels'
    for step in dataset.get('pipeline') or ():
        name = bare_name(step['type'])
        needed = OTHERS.get(name, needed)
        if name == 'LoadAnnotations' and step.get('with_seg'):
            needed = 'label maps beside boxes'
    kind = class_of(dataset.get('type'), DATASETS, scope)
    bases = {base.__name__ for base in getattr(kind, '__mro__', ())}
    if kind is not None and not bases & {'BaseDetDataset', 'BaseSegDataset'}:
        needed = needed or f'the annotations of {bare_name(dataset["type"])}'
    if needed:
        raise UserError(
            f'{place} of the base needs {needed}, which own_data cannot name: take a detector, an '
            'instance segmenter or a semantic segmenter as the base'
        )
