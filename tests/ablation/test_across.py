"""Comparisons across tasks: does an effect differ between them?"""

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import t
from support.simulated_study import OF_NO_TRAINING

from mmse.ablation.across import parse_across
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.plan import (
    Plan,
    PlannedAcross,
    PlannedArm,
    PlannedContrast,
    PlannedTask,
    PlannedVariant,
)
from mmse.ablation.records import FinishedTrial
from mmse.ablation.registration import _kept_to
from mmse.ablation.verdicts import judge
from mmse.utils.errors import UserError

SEEDS = 12
SMALLEST = {'cls': 1.0, 'det': 0.01, 'seg': 2.0}
DOSE = {'moved': 0.2, 'over_images': 0.2, 'mean': 1.1, 'over_channels': 0.1, 'closed': 0, 'open': 0}


def plan(attention='se'):
    arms = ('avg', 'both')
    return Plan(
        name='q',
        start='identity',
        seeds=list(range(SEEDS)),
        results_version=RESULTS_VERSION,
        tasks=[PlannedTask(name, 'b.py', 'm', smallest) for name, smallest in SMALLEST.items()],
        arms=[PlannedArm(name, {}) for name in arms],
        factors={},
        contrasts=[PlannedContrast('squeeze', {'both': 1.0, 'avg': -1.0}, '', registered=True)],
        variants=[
            PlannedVariant(task, arm, 'r', 'd', attention, '') for task in SMALLEST for arm in arms
        ],
        looks=[SEEDS],
        counted=list(range(SEEDS)),
        smallest_dose=0.05,
        across=[
            PlannedAcross(
                'dense', 'squeeze', {'det': 0.5, 'seg': 0.5, 'cls': -1.0}, 'what', registered=True
            )
        ],
    )


def trials(effects, dose=0.2):
    """Of every arm, task and seed; ``effects`` are those of each seed in smallest effects."""
    return [
        FinishedTrial(
            id=f'{task}-{arm}-{seed}',
            task=task,
            arm=arm,
            seed=seed,
            recipe='r',
            data='d',
            results_version=RESULTS_VERSION,
            **OF_NO_TRAINING,
            metrics={'m': SMALLEST[task] * (100 + seed + (arm == 'both') * effects[task][seed])},
            curves={},
            dose={'layer1.0': {**DOSE, 'moved': dose if task == 'seg' else 0.2}},
        )
        for task in SMALLEST
        for arm in ('avg', 'both')
        for seed in range(SEEDS)
    ]


def test_the_difference_of_effects_by_hand():
    rng = np.random.default_rng(0)
    effects = {task: rng.normal(size=SEEDS) for task in SMALLEST}
    effects['det'] += 4
    judged, _ = judge(plan(), trials(effects))
    assert [c.task for c in judged] == ['cls', 'det', 'seg', '']
    across = judged[-1]
    by_seed = (effects['det'] + effects['seg']) / 2 - effects['cls']
    assert list(across.estimate.differences.values()) == pytest.approx(list(by_seed))
    half = t.ppf(0.975, SEEDS - 1) * by_seed.std(ddof=1) / SEEDS**0.5
    assert across.estimate.t_interval == pytest.approx(
        (by_seed.mean() - half, by_seed.mean() + half)
    )
    flips = np.array(list(itertools.product((-1, 1), repeat=SEEDS))) @ by_seed
    assert across.estimate.p == pytest.approx((abs(flips) >= abs(by_seed.sum()) - 1e-9).mean())
    assert across.smallest_effect == 1
    assert across.verdict == 'positive'
    # It is one of the family that Holm's correction is over.
    ps = sorted(c.estimate.p for c in judged)
    corrected = np.maximum.accumulate([min(1, (4 - i) * p) for i, p in enumerate(ps)])
    assert across.p == pytest.approx(corrected[ps.index(across.estimate.p)])


def test_a_dose_of_one_task_that_is_too_small():
    effects = {task: [3.0 * (task == 'det')] * SEEDS for task in SMALLEST}
    judged, _ = judge(plan(), trials(effects, dose=0.01))
    verdicts = {c.task: c.verdict for c in judged}
    assert verdicts['det'] == 'helps'
    assert verdicts[''].startswith('not tested: the attention hardly moved')


def test_what_is_compared_after_the_first_results_is_exploratory():
    first = plan()
    added = replace(first.across[0], name='other', weights={'det': 1.0, 'seg': -1.0})
    kept = _kept_to(first, replace(first, across=[*first.across, added]), first.counted)
    assert [(a.name, a.registered) for a in kept.across] == [('dense', True), ('other', False)]
    # One that is left out later stays.
    assert [a.name for a in _kept_to(first, replace(first, across=[]), first.counted).across] == [
        'dense'
    ]


def test_a_plan_as_a_file_holds_it():
    read = Plan.from_json(json.loads(json.dumps(asdict(plan()))))
    assert read.across == plan().across
    assert read.contrasts == plan().contrasts


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        ({'of': ['det'], 'against': ['cls']}, 'across.dense: .* allowed: a dict of contrast, of'),
        ({'contrast': 'sqeeze', 'of': ['det'], 'against': ['cls']}, 'did you mean squeeze'),
        ({'contrast': 'squeeze', 'of': 'det', 'against': ['cls']}, 'across.dense.of: .* a list'),
        ({'contrast': 'squeeze', 'of': ['dt'], 'against': ['cls']}, 'there is no task dt'),
        ({'contrast': 'squeeze', 'of': ['det'], 'against': ['det']}, 'det stands in it twice'),
    ],
)
def test_mistakes_are_named(given, match):
    with pytest.raises(UserError, match=match):
        parse_across('dense', given, ['squeeze'], list(SMALLEST))


def test_the_weights():
    given = {'contrast': 'squeeze', 'of': ['det', 'seg'], 'against': ['cls']}
    across = parse_across('dense', given, ['squeeze'], list(SMALLEST))
    assert across.weights == {'det': 0.5, 'seg': 0.5, 'cls': -1.0}
    assert across.description == (
        'squeeze on det and seg - on cls, in smallest effects of interest'
    )
