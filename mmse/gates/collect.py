"""The gates of a trained model on a set of images, with the classes that the images show."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmse.gates.watch import backbones, recorded


@dataclass
class Collected:
    """Gates and classes of some images.

    Args:
        classes: Names of the classes.
        gates: Gates by block, (images, C).
        weights: How much of each class an image shows, (images, classes): 1 where it has a box of
            the class, or the class's share of the labelled area.
    """

    classes: tuple[str, ...]
    gates: dict[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def by_class(self, block: str) -> dict[str, np.ndarray]:
        """The mean gate of each channel over the images of each class that is there, (C,)."""
        gates = self.gates[block]
        return {
            name: weight @ gates / weight.sum()
            for name, weight in zip(self.classes, self.weights.T, strict=True)
            if weight.sum() > 0
        }


def collect(
    model: BaseModel, batches: Iterable[Mapping[str, Any]], classes: tuple[str, ...]
) -> Collected:
    """Run a model over batches and keep every image's gates.

    Args:
        model: A detector or segmenter with a backbone of ours, in eval mode.
        batches: As its validation loader gives them.
        classes: Names of its classes.
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
    """How much of each class a sample shows, (classes,); zeros without ground truth."""
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
    """Root mean square over the channels of a stage's last residual branch, (H, W).

    Args:
        stage: The stage.
        before: Of the branch as the attention gets it.
        after: Recalibrated.
    """

    stage: str
    before: np.ndarray
    after: np.ndarray


def energies(model: BaseModel, batch: Mapping[str, Any]) -> list[Energy]:
    """What recalibration does to the first image of a batch, in the last block of each stage."""
    found: list[Energy] = []
    handles = []
    for backbone in backbones(model):
        for stage in backbone.res_layers:
            attention = getattr(backbone, stage)[-1].attention
            if attention is not None:
                # A hook makes the block take the composition, where the branch can be seen.
                handles.append(attention.register_forward_hook(_keep(stage, found)))
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
