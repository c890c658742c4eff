"""The gates of a trained model on a set of images, and the classes that the images show."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmse.gates.watch import attentions, recorded, stage_of


@dataclass
class Collected:
    """The gates and the classes of some images.

    Args:
        classes: Names of the classes.
        gates: Gates by block, (images, C).
        weights: How much each image shows of each class, (images, classes). In detection, 1 if
            the image has a box of the class and 0 otherwise; in segmentation, the class's share
            of the labelled area.
    """

    classes: tuple[str, ...]
    gates: dict[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def by_class(self, block: str) -> dict[str, np.ndarray]:
        """Weighted mean of a block's gates over the images, (C,), for each class that occurs."""
        gates = self.gates[block]
        return {
            name: weight @ gates / weight.sum()
            for name, weight in zip(self.classes, self.weights.T, strict=True)
            if weight.sum() > 0
        }


def collect(
    model: BaseModel, batches: Iterable[Mapping[str, Any]], classes: tuple[str, ...]
) -> Collected:
    """Run a model over batches and keep the gates of every image.

    Args:
        model: A detector or segmenter with an ``SEResNet`` backbone, in eval mode.
        batches: Batches as the validation loader of the model gives them.
        classes: Names of the classes of the data.
    """
    gates: dict[str, list[Tensor]] = {}
    weights = []
    for batch in batches:
        with torch.no_grad(), recorded(model) as found:
            data = model.data_preprocessor(batch, False)
            model.extract_feat(data['inputs'])
        for block, gate in found.items():
            gates.setdefault(block, []).append(gate.cpu())
        weights += [class_weights(sample, len(classes)) for sample in data['data_samples']]
    return Collected(
        classes,
        {block: torch.cat(parts).numpy() for block, parts in gates.items()},
        np.array(weights),
    )


def class_weights(sample: BaseDataElement, classes: int) -> np.ndarray:
    """How much a sample shows of each class, (classes,); zeros without ground truth.

    See ``Collected.weights``.
    """
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data.flatten()
        counts = torch.bincount(labels[labels < classes], minlength=classes).double()
        return (counts / counts.sum().clamp(min=1)).cpu().numpy()
    shown = np.zeros(classes)
    if 'gt_instances' in sample:
        shown[sample.gt_instances.labels.cpu().numpy()] = 1
    return shown


@dataclass(frozen=True)
class Energy:
    """Root mean square over the channels of a residual branch, at each position.

    Args:
        stage: Name of the stage, such as ``layer2``.
        before: Before recalibration, (H, W).
        after: After recalibration, (H, W).
    """

    stage: str
    before: np.ndarray
    after: np.ndarray


def energies(model: BaseModel, batch: Mapping[str, Any]) -> list[Energy]:
    """What recalibration does to the first image of a batch.

    Args:
        model: A detector or segmenter with an ``SEResNet`` backbone, in eval mode.
        batch: A batch as the validation loader of the model gives it.

    Returns:
        One entry for each stage with attention, about its last block that has it.
    """
    found: list[Energy] = []
    last = {stage_of(name): attention for name, attention in attentions(model)}
    # The fused path never computes the branch alone; a hook makes a block leave it.
    handles = [
        attention.register_forward_hook(_keep(stage, found)) for stage, attention in last.items()
    ]
    try:
        with torch.no_grad():
            model.extract_feat(model.data_preprocessor(batch, False)['inputs'])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _keep(stage: str, found: list[Energy]) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        maps = (x[0].float().square().mean(0).sqrt().cpu().numpy() for x in (args[0], output))
        found.append(Energy(stage, *maps))

    return hook
