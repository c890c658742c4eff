"""Secondary outcomes: what else is compared besides the metric of the last validation."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmse.ablation.values import positive
from mmse.utils.errors import UserError

OURS = ('saturated', 'moved', 'over_images', 'diverged', 'spikes', 'non_finite')
KINDS = (
    f"a metric of the evaluator, {', '.join(map(repr, OURS))}, or 'steps to VALUE' of the metric"
)
POINTS = 100  # of the loss curve that a trial keeps
WINDOW = 10  # iterations, at most, of the points in which spikes are looked for
SPIKE = 1.5
BEFORE = 5


@dataclass(frozen=True)
class Outcome:
    """One secondary outcome.

    Args:
        name: Its name.
        of: What it is: the name of a metric in the last validation; ``'saturated'``, the share of
            gates below 0.05 or above 0.95, the mean over the blocks; ``'moved'`` and
            ``'over_images'``, the dose;
            ``'steps to VALUE'``, the iteration of the first validation whose metric reaches the
            value (where none does, that of the next one after the end); ``'diverged'``, 1 if the
            training ended because its loss or its weights became infinite or NaN and 0 otherwise;
            ``'non_finite'``, the number of iterations with such a loss, of which mixed precision
            survives some; or ``'spikes'``, see ``spikes``.
        smallest_effect: The smallest difference that matters, in its unit.
    """

    name: str
    of: str
    smallest_effect: float


def parse_outcome(name: str, given: Any, where: str) -> Outcome:
    """Read one secondary outcome of a config, ``dict(of=..., smallest_effect=...)``.

    Raises:
        UserError: A key is missing or unknown, or the smallest effect is no number above 0.
    """
    if not isinstance(given, Mapping) or set(given) != {'of', 'smallest_effect'}:
        raise UserError(f'{where}: {given!r} given; allowed: dict(of=..., smallest_effect=...)')
    of, smallest = given['of'], positive(given['smallest_effect'], f'{where}.smallest_effect')
    if not isinstance(of, str) or (of.startswith('steps') and target_of(of) is None):
        raise UserError(f'{where}.of: {of!r} given; allowed: {KINDS}')
    return Outcome(name, of, smallest)


def is_metric(outcome: Outcome) -> bool:
    """Whether it is a metric of the evaluator."""
    return outcome.of not in OURS and target_of(outcome.of) is None


def target_of(of: str) -> float | None:
    """The value of ``'steps to VALUE'``; None for anything else."""
    found = re.fullmatch(r'steps to (\d+\.?\d*|\.\d+)', of)
    return float(found[1]) if found else None


def spikes(losses: Sequence[float]) -> int:
    """How often the loss of a training rises by half over what it was just before.

    The losses are averaged over a hundredth of the training, or over 10 iterations where that is
    less. Each such mean is compared with the median of the five before it.

    Args:
        losses: The loss of every iteration.
    """
    curve = [mean for _, mean in averaged(losses, min(WINDOW, width_of(losses)))]
    return count_spikes(curve)


def count_spikes(curve: Sequence[float]) -> int:
    """The number of points of a curve that lie half as high again as the median of five before."""
    return sum(
        curve[i] > SPIKE * statistics.median(curve[i - BEFORE : i])
        for i in range(BEFORE, len(curve))
    )


def width_of(losses: Sequence[float]) -> int:
    """Iterations of a point of the loss curve that a trial keeps."""
    return max(1, -(-len(losses) // POINTS))


def averaged(losses: Sequence[float], width: int) -> list[list[float]]:
    """(Iteration, mean since the point before) of a loss, over those that are finite.

    Args:
        losses: The loss of every iteration.
        width: Iterations of a point.
    """
    points = []
    for i in range(0, len(losses), width):
        if finite := [loss for loss in losses[i : i + width] if math.isfinite(loss)]:
            points.append([min(i + width, len(losses)), statistics.mean(finite)])
    return points
