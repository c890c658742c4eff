"""Statistics of paired seeds: differences, intervals, exact tests and verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mmse.ablation.contrasts import Contrast
from mmse.ablation.looks import LEVEL

UNDECIDED = 'undecided'
NO_EFFECT = 'no effect larger than'
SECONDARY = 'contrasts of secondary outcomes'
RESAMPLES = 9999
FLIPS = 2**16  # of which the smallest p is exact


@dataclass(frozen=True)
class Estimate:
    """What the seeds say about one contrast; all but p in the unit of the metric.

    Args:
        differences: The contrast's value for each seed.
        mean: Their mean; nan without seeds.
        t_interval: Interval of the mean by Student's t; infinite below two seeds.
        bootstrap_interval: Interval of the mean by the bootstrap (BCa; percentile where all but one
            seed agree); infinite below two seeds.
        p: Two-sided p of the exact sign-flip test: the share of the 2^n ways to swap the sides of
            each pair whose mean is at least as far from zero.
        level: The intervals cover with a probability of 1 - level.
    """

    differences: Mapping[int, float]
    mean: float
    t_interval: tuple[float, float]
    bootstrap_interval: tuple[float, float]
    p: float
    level: float = LEVEL


def estimate(
    contrast: Contrast, values: Mapping[str, Mapping[int, float]], level: float = LEVEL
) -> Estimate:
    """Estimate a contrast from the seeds that have all of its arms.

    Args:
        contrast: The contrast.
        values: The metric of each arm by seed.
        level: The intervals cover with a probability of 1 - level.
    """
    seeds = sorted(set.intersection(*(set(values[arm]) for arm in contrast.weights)))
    differences = {
        seed: sum(weight * values[arm][seed] for arm, weight in contrast.weights.items())
        for seed in seeds
    }
    sample = np.array(list(differences.values()))
    if len(sample) < 2:
        mean = float(sample[0]) if len(sample) else math.nan
        return Estimate(differences, mean, (-math.inf, math.inf), (-math.inf, math.inf), 1.0, level)
    return Estimate(
        differences,
        float(sample.mean()),
        t_interval(sample, level),
        bootstrap_interval(sample, level),
        sign_flip_p(sample),
        level,
    )


def t_interval(sample: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean of at least two numbers by Student's t."""
    interval = stats.ttest_1samp(sample, 0).confidence_interval(1 - level)
    if np.ptp(sample) == 0:  # no spread: the interval is a point, which scipy calls undefined
        return float(sample[0]), float(sample[0])
    return float(interval.low), float(interval.high)


def bootstrap_interval(sample: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean of at least two numbers by the BCa bootstrap, from a fixed seed.

    Source: https://doi.org/10.1080/01621459.1987.10478410.
    """
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    low, high = stats.bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=1 - level, rng=0
    ).confidence_interval
    return float(low), float(high)


def sign_flip_p(sample: np.ndarray) -> float:
    """Two-sided p of the sign-flip test of a zero mean; exact up to 2^16 flips, sampled above."""
    test = stats.permutation_test(
        (sample,), np.mean, permutation_type='samples', n_resamples=FLIPS, rng=0
    )
    return float(test.pvalue)


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p that the sign-flip test can give with so many pairs."""
    return min(1.0, 2.0 ** (1 - pairs) if 2**pairs <= FLIPS else 2 / (FLIPS + 1))


def pairs_needed(contrasts: int, level: float = LEVEL) -> int:
    """How many pairs it takes for the smallest p to stay below the level after correction.

    Args:
        contrasts: Number of contrasts that Holm's correction is made for.
        level: The level.
    """
    pairs = 1
    while contrasts * smallest_p(pairs) >= level and 2**pairs <= FLIPS:
        pairs += 1
    return pairs


def reach(pairs: int, contrasts: int, level: float = LEVEL, what: str = 'contrasts') -> str:
    """The smallest p that so many pairs can give, and whether it is small enough, in words.

    Args:
        pairs: Number of seeds that have all arms.
        contrasts: Number of registered comparisons that are corrected for each other.
        level: What the last look may spend.
        what: What they are called.
    """
    if not contrasts:
        return f'No {what} are registered, so every comparison is exploratory'
    smallest = smallest_p(pairs)
    text = (
        f'{pairs} seeds have all arms: the smallest two-sided p that they can give is '
        f'{smallest:.2g}, {min(1.0, contrasts * smallest):.2g} after '
        f"Holm's correction for {contrasts} {what}"
    )
    needed = pairs_needed(contrasts, level)
    if pairs < needed:
        return f'{text}. No effect of any size can reach {level:.2g}: that takes {needed} seeds'
    return text


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction. Source: https://www.jstor.org/stable/4615733."""
    return list(map(float, multipletests(p_values, method='holm')[1])) if p_values else []


def verdict(estimate: Estimate, p: float, smallest_effect: float, words: tuple[str, str]) -> str:
    """The verdict on a contrast, in words.

    Args:
        estimate: The estimate of a contrast.
        p: Its p after Holm's correction.
        smallest_effect: The smallest effect of interest, in the unit of the metric.
        words: What it is called if the difference is above zero, and below.
    """
    low, high = estimate.t_interval
    # Seeds that all say the same, such as that nothing diverged, do not say how sure that is.
    if -smallest_effect < low < high < smallest_effect:
        return f'{NO_EFFECT} {smallest_effect:g}'
    # The interval must agree with the test: neither is believed against the other.
    if p < estimate.level and (low > 0 or high < 0):
        return words[0] if estimate.mean > 0 else words[1]
    return f'{UNDECIDED} with {len(estimate.differences)} seeds'
