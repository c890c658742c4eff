"""The statistics of paired seeds, against values by hand and data of a known effect."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mmse.ablation import stats
from mmse.ablation.contrasts import Contrast

WORDS = ('helps', 'hurts')
SAMPLE = np.array([0.5, 1.0, 1.5, 3.0, -0.5])


def test_t_interval_by_hand():
    # mean 1.1, deviation sqrt(6.70 / 4) = 1.2942, t(0.975, 4) = 2.7764
    half = 2.776445105 * math.sqrt(6.70 / 4) / math.sqrt(5)
    assert stats.t_interval(SAMPLE) == pytest.approx((1.1 - half, 1.1 + half), abs=1e-8)


def test_sign_flip_p_counts_every_flip():
    extreme = sum(
        abs(np.mean(np.array(signs) * SAMPLE)) >= abs(SAMPLE.mean()) - 1e-12
        for signs in itertools.product((-1, 1), repeat=len(SAMPLE))
    )
    assert stats.sign_flip_p(SAMPLE) == pytest.approx(extreme / 2**5)


@pytest.mark.parametrize('pairs', [2, 3, 5, 8])
def test_smallest_p_is_what_the_test_gives_when_all_seeds_agree(pairs):
    sample = np.linspace(1, 2, pairs)
    assert stats.sign_flip_p(sample) == pytest.approx(stats.smallest_p(pairs)) == 2 / 2**pairs


def test_three_seeds_can_never_reach_the_level():
    assert stats.smallest_p(3) > 0.05
    assert [stats.pairs_needed(m) for m in (1, 4, 7)] == [6, 8, 9]


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.2: 4 x 0.01, 3 x 0.02, max(0.06, 2 x 0.03), 0.2
    assert stats.holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert stats.holm([]) == []


def test_a_contrast_uses_the_seeds_that_have_all_of_its_arms():
    contrast = Contrast('c', {'a': 1.0, 'b': -0.5, 'c': -0.5}, '')
    values = {'a': {0: 5.0, 1: 6.0, 2: 7.0}, 'b': {0: 1.0, 1: 2.0}, 'c': {0: 3.0, 1: 0.0, 3: 9.0}}
    found = stats.estimate(contrast, values)
    assert found.differences == {0: 3.0, 1: 5.0}
    assert found.mean == 4.0


def test_one_seed_decides_nothing():
    found = stats.estimate(Contrast('c', {'a': 1.0, 'b': -1.0}, ''), {'a': {0: 9.0}, 'b': {0: 1.0}})
    assert found.p == 1.0
    assert found.t_interval == (-math.inf, math.inf)
    assert stats.verdict(found, 1.0, 0.1, WORDS) == 'undecided with 1 seeds'
    none = stats.estimate(Contrast('c', {'a': 1.0, 'b': -1.0}, ''), {'a': {}, 'b': {}})
    assert math.isnan(none.mean)
    assert stats.verdict(none, 1.0, 0.1, WORDS) == 'undecided with 0 seeds'


@pytest.mark.parametrize(
    ('differences', 'expected'),
    [
        ((2.0, 2.2, 1.9, 2.1, 2.0, 1.8, 2.3, 2.0), 'helps'),
        ((-2.0, -2.2, -1.9, -2.1, -2.0, -1.8, -2.3, -2.0), 'hurts'),
        ((0.1, -0.1, 0.2, -0.2, 0.1, -0.1, 0.0, 0.05), 'no effect larger than 1'),
        # Sure, and too small to matter.
        ((0.1, 0.2, 0.15, 0.1, 0.2, 0.15, 0.1, 0.2), 'no effect larger than 1'),
        ((4.0, -3.0, 2.0, -1.0, 5.0, -2.0, 0.0, 1.0), 'undecided with 8 seeds'),
        ((2.0, 2.2, 1.9), 'undecided with 3 seeds'),
        ((2.0, 2.0, 2.0, 2.0, 2.0, 2.0), 'helps'),
    ],
)
def test_verdicts(differences, expected):
    arms = {'a': dict(enumerate(differences)), 'b': dict.fromkeys(range(len(differences)), 0.0)}
    found = stats.estimate(Contrast('c', {'a': 1.0, 'b': -1.0}, ''), arms)
    assert stats.verdict(found, found.p, 1.0, WORDS) == expected


def test_bootstrap_interval_covers_the_mean_of_a_large_sample_like_t_does():
    sample = np.random.default_rng(0).normal(3, 1, 400)
    assert stats.bootstrap_interval(sample) == pytest.approx(stats.t_interval(sample), abs=0.02)
    assert stats.bootstrap_interval(np.ones(4)) == (1.0, 1.0)


def test_t_interval_covers_a_known_effect_in_95_of_100_studies():
    rng = np.random.default_rng(1)
    studies, effect = 4000, 0.7
    samples = rng.normal(effect, 1.0, (studies, 8))
    covered = sum(low < effect < high for low, high in map(stats.t_interval, samples))
    # Five standard errors of a share of 95% in 4000.
    assert covered / studies == pytest.approx(0.95, abs=5 * math.sqrt(0.95 * 0.05 / studies))


def test_sign_flip_test_keeps_its_level_under_no_effect():
    rng = np.random.default_rng(2)
    studies = 1000
    # Skewed on purpose per seed, symmetric in sign: what the test assumes, and no more.
    samples = rng.exponential(1.0, (studies, 8)) * rng.choice([-1, 1], (studies, 8))
    level = np.mean([stats.sign_flip_p(sample) <= 0.05 for sample in samples])
    assert 0.02 < level <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)


def test_interval_agrees_with_scipys_paired_test():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 7))
    arms = {'a': dict(enumerate(a)), 'b': dict(enumerate(b))}
    found = stats.estimate(Contrast('c', {'a': 1.0, 'b': -1.0}, ''), arms)
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.t_interval == pytest.approx((expected.low, expected.high), abs=1e-12)
