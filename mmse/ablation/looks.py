"""When the seeds of a study may be looked at, and what each look may spend of the error level.

Whoever looks at a study after every seed and stops when p is small errs far more often than p says.
Here the looks stand in the plan, and together they spend the level: the level of look k is the
increment of the O'Brien-Fleming-type spending function, so by the union bound the chance that any
look finds an effect where there is none is at most the level, whatever the test.
Source: https://doi.org/10.1093/biomet/70.3.659.
"""

import math
from collections.abc import Sequence

from scipy import stats

from mmse.ablation.values import is_count
from mmse.utils.errors import UserError

LEVEL = 0.05


def spent(fraction: float) -> float:
    """The part of the level that may be spent when so much of the seeds has ended.

    Args:
        fraction: Above 0, and 1 for all seeds.
    """
    quantile = stats.norm.ppf(1 - LEVEL / 2)
    return float(2 * stats.norm.sf(quantile / math.sqrt(fraction)))


def levels(looks: Sequence[int]) -> list[float]:
    """The level of each look; they add up to 0.05.

    Args:
        looks: Numbers of seeds, rising.
    """
    totals = [spent(seeds / looks[-1]) for seeds in looks]
    return [total - before for total, before in zip(totals, [0.0, *totals], strict=False)]


def check_looks(given: object, seeds: int) -> list[int]:
    """The looks of a config: after how many seeds a verdict is given.

    Args:
        given: What the config says; None for one look at the end.
        seeds: Number of seeds.

    Raises:
        UserError: They are no rising numbers, or end before the number of seeds. They may end
            after it: fewer seeds can be run than were planned, and more of them later.
    """
    if given is None:
        return [seeds]
    if (
        not isinstance(given, list | tuple)
        or not all(is_count(look, 1) for look in given)
        or sorted(set(given)) != list(given)
        or not given
        or given[-1] < seeds
    ):
        raise UserError(
            f'looks: {given!r} given; allowed: rising numbers of seeds, of which the last is at '
            f'least that of all seeds, such as [{max(1, seeds // 2)}, {seeds}]'
        )
    return list(given)
