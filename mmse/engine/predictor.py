"""A trained model for new images: ``mmse.load_model``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS, init_default_scope
from mmengine.structures import BaseDataElement

from mmse.checkpoints import read_checkpoint
from mmse.checkpoints.belonging import check_checkpoint, recorded_classes
from mmse.engine.build import build_model
from mmse.engine.config import leaves, load_config
from mmse.engine.config.kinds import bare_name, scope_of
from mmse.engine.config.own_datasets import palette
from mmse.utils.dependencies import require
from mmse.utils.errors import UserError


class Predictor:
    """mmdet's or mmseg's inferencer of a trained model, with the classes of its checkpoint.

    Args:
        cfg: The full config.
        checkpoint: The checkpoint file; every weight must fit.
        device: A device of torch; by default a GPU if there is one.

    Attributes:
        inferencer: mmdet's ``DetInferencer`` or mmseg's ``MMSegInferencer``.
        classes: Names of the classes.
        palette: Their colours, RGB in 0..255.

    Raises:
        UserError: The checkpoint does not belong to the model, or the config says neither how
            images are prepared nor which classes there are.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None) -> None:
        scope = scope_of(cfg)
        if scope not in ('mmdet', 'mmseg'):
            raise UserError(f'the config is for {scope}: only detectors and segmenters predict')
        require('mmcv.ops' if scope == 'mmdet' else 'mmseg', 'predictions')
        init_default_scope(scope)
        meta = read_checkpoint(checkpoint)
        self.classes = recorded_classes(meta) or _classes(cfg)
        described = (meta.get('meta') or {}).get('dataset_meta') or {}
        colours = described.get('palette')
        self.palette = [tuple(c) for c in colours or palette(len(self.classes))]
        check_checkpoint(checkpoint, build_model(cfg).module, whole=True)
        pipeline, loader = _test_pipeline(cfg)
        cfg = Config(
            {
                'model': cfg.model,
                'test_dataloader': {'dataset': {'pipeline': pipeline}},
                'visualizer': {'type': _VISUALIZERS[scope]},
                'default_scope': scope,
            }
        )
        self.is_detector = scope == 'mmdet'
        if self.is_detector:
            from mmdet.apis import DetInferencer

            self.inferencer: Any = DetInferencer(
                cfg, checkpoint, device, palette=self.palette, show_progress=False
            )
        else:
            from mmseg.apis import MMSegInferencer

            self.inferencer = MMSegInferencer(
                cfg, checkpoint, list(self.classes), self.palette, device=device
            )
            self.inferencer.show_progress = False
        self.model = self.inferencer.model
        # Files are read as they were for training; the inferencers would read them as 8-bit colour.
        first = self.inferencer.pipeline.transforms[_index_of_loader(pipeline)]
        first.from_file = TRANSFORMS.build(loader)

    def __call__(
        self, images: str | np.ndarray | Sequence[str | np.ndarray], batch_size: int = 1
    ) -> list[BaseDataElement]:
        """Predict images.

        Args:
            images: Files, or arrays (H, W, 3) in BGR; one or several.
            batch_size: Images in one forward pass; segmenters need images of one size for more
                than one.

        Returns:
            A data sample of mmdet or mmseg for each image, on the CPU, with ``pred_instances`` or
            ``pred_sem_seg``.
        """
        several = list(images) if isinstance(images, list | tuple) else [images]
        options = {'no_save_vis': True, 'print_result': False} if self.is_detector else {}
        results = self.inferencer(
            several, batch_size=batch_size, return_datasamples=True, **options
        )
        if self.is_detector:
            results = results['predictions']
        samples = list(results) if isinstance(results, list | tuple) else [results]
        return [sample.cpu() for sample in samples]


def load_model(
    config: str,
    checkpoint: str,
    *,
    device: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    attention: str | None = None,
) -> Predictor:
    """Load a trained model for new images: ``mmse.load_model(config, checkpoint)('photo.jpg')``.

    Args:
        config: A config file, such as the one in the working folder of the training, or
            ``package::path``.
        checkpoint: The checkpoint file.
        device: A device of torch; by default a GPU if there is one.
        cfg_options: Dotted keys of the config with new values.
        attention: What ``--attention`` was in the training.

    Raises:
        UserError: The config or the checkpoint cannot be used.
    """
    return Predictor(load_config(config, cfg_options, attention), checkpoint, device)


_VISUALIZERS = {'mmdet': 'mmdet.DetLocalVisualizer', 'mmseg': 'mmseg.SegLocalVisualizer'}


def _classes(cfg: Config) -> tuple[str, ...]:
    """Class names by the config, for checkpoints that have none."""
    for key in ('test_dataloader', 'train_dataloader'):
        if cfg.get(key) is not None:
            metainfo = leaves(cfg[key]['dataset'])[0].get('metainfo') or {}
            if not isinstance(metainfo.get('classes'), str | None):
                return tuple(map(str, metainfo['classes']))
    raise UserError('neither the checkpoint nor the config has the names of the classes')


def _test_pipeline(cfg: Config) -> tuple[list[ConfigDict], ConfigDict]:
    """How an image is prepared, and how it is read from its file."""
    if cfg.get('test_dataloader') is not None:
        steps = leaves(cfg.test_dataloader['dataset'])[0]['pipeline']
    elif cfg.get('test_pipeline') is not None:
        steps = cfg.test_pipeline
    else:
        raise UserError('the config has no test_dataloader, which says how images are prepared')
    steps = [ConfigDict(step) for step in steps if 'Annotations' not in bare_name(step['type'])]
    at = _index_of_loader(steps)
    loader, steps[at] = steps[at], ConfigDict(type='LoadImageFromFile')
    return steps, loader


def _index_of_loader(steps: Sequence[Mapping[str, Any]]) -> int:
    for index, step in enumerate(steps):
        if bare_name(step['type']).startswith('Load') or 'Inferencer' in bare_name(step['type']):
            return index
    raise UserError('the test pipeline of the config does not load an image')
