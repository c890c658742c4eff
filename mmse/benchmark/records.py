"""What a benchmark is asked to measure, and what it has measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mmse.benchmark.measure import Ratio
from mmse.utils.dependencies import require_torch
from mmse.utils.errors import UserError

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
MODES = ('training', 'inference')
STRIDE = 32


@dataclass(frozen=True)
class Settings:
    """What is measured, and on what.

    Args:
        depth: Depth of the backbones.
        size: Height and width of the images, pixels, at least 32.
        batch: Number of images.
        dtype: ``'float32'``, or ``'bfloat16'`` or ``'float16'`` by autocast.
        channels_last: Whether networks and images are in channels_last memory format.
        compile: Whether the networks are compiled with ``torch.compile``.
        device: ``'cpu'`` or ``'cuda'``.
        rounds: Number of timed rounds, at least 2.
        only: Networks to measure beside the plain one, by name or by a part of the name; None for
            all.
        detector: Whether to measure a whole Faster R-CNN instead of backbones.
        modes: ``'training'``, ``'inference'`` or both.
        norm_eval: Whether batch norms keep their running statistics in training, as is usual when
            a detector is fine-tuned.
    """

    depth: int = 50
    size: tuple[int, int] = (256, 320)
    batch: int = 2
    dtype: str = 'float32'
    channels_last: bool = False
    compile: bool = False
    device: str = 'cpu'
    rounds: int = 15
    only: list[str] | None = None
    detector: bool = False
    modes: Sequence[str] = MODES
    norm_eval: bool = False

    def check(self) -> None:
        """Check that these settings can be measured on this machine.

        Raises:
            UserError: An option is wrong; the message names it.
        """
        if min(self.size) < STRIDE:
            height, width = self.size
            raise UserError(f'--size {height}x{width}: allowed: {STRIDE} (the stride) or more')
        one_value = self.batch == 1 and max(self.size) <= STRIDE
        if 'training' in self.modes and one_value and not self.norm_eval:
            raise UserError(
                '--batch 1 with --size 32: the last stage has one value per channel, on which a '
                'batch norm cannot train; take 2 images, a larger size, or --modes inference'
            )
        if self.device == 'cuda' and not torch.cuda.is_available():
            raise UserError('--device cuda: torch sees no GPU on this machine')
        if self.device == 'cpu' and self.dtype == 'float16':
            raise UserError('--dtype float16: the CPU has no float16 training; use bfloat16')
        if self.compile:
            require_torch('2.6', '--compile')
        if self.batch < 1 or self.rounds < 2:
            raise UserError('--batch must be at least 1 and --rounds at least 2')


@dataclass
class Row:
    """What was measured of one network; None where it was not.

    Args:
        name: Name of the network.
        parameters: Number of parameters.
        macs: Multiply-accumulate operations for one image.
        inference_ms: Median time of an inference, milliseconds.
        inference: That time over the plain network's.
        training_ms: Median time of forward and backward pass, milliseconds.
        training: That time over the plain network's.
        saved_bytes: Bytes that are kept for the backward pass.
        saved: Those bytes over the plain network's.
        peak_bytes: Bytes of CUDA memory that a training step allocates at its peak.
    """

    name: str
    parameters: int
    macs: float | None = None
    inference_ms: float | None = None
    inference: Ratio | None = None
    training_ms: float | None = None
    training: Ratio | None = None
    saved_bytes: int | None = None
    saved: float | None = None
    peak_bytes: int | None = None


@dataclass
class Result:
    """The rows of a benchmark, and what they depend on.

    Args:
        settings: What was measured.
        environment: Versions and hardware.
        rows: One row per network.
        left_out: One sentence for each network that could not be built.
    """

    settings: Settings
    environment: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As dicts and lists, for JSON."""
        return asdict(self)
