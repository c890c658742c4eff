"""Single image files through the pipeline of a data set."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from mmse.engine.config import leaves
from mmse.engine.config.kinds import bare_name
from mmse.utils.errors import UserError


def image_pipeline(dataset: MutableMapping[str, Any]) -> list[Any]:
    """The pipeline of a dataset config (the first one of a wrapper) without annotations."""
    return [
        step
        for step in leaves(dataset)[0]['pipeline']
        if 'Annotations' not in bare_name(step['type'])
    ]


def image_batch(dataset: MutableMapping[str, Any], image: str) -> dict[str, Any]:
    """One image as the dataset of a config would give it, without annotations, in a batch.

    The default scope must be that of the config.

    Raises:
        UserError: There is no such file.
    """
    if not Path(image).is_file():
        raise UserError(f'there is no image {image}')
    steps = Compose([TRANSFORMS.build(step) for step in image_pipeline(dataset)])
    item = steps({'img_path': image, 'img_id': 0})
    return {'inputs': [item['inputs']], 'data_samples': [item['data_samples']]}
