"""Looks, doses and secondary outcomes: what a study may say, and when."""

import gc
import itertools
import json
import math
import statistics
from dataclasses import asdict, replace

import numpy as np
import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from support.simulated_study import DATA, OF_NO_TRAINING, dose_of, simulate_study

from mmse.ablation import stats
from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.looks import check_looks, levels, spent
from mmse.ablation.outcomes import Outcome, averaged, count_spikes, parse_outcome, spikes
from mmse.ablation.plan import (
    Plan,
    PlannedArm,
    PlannedContrast,
    PlannedPretraining,
    PlannedTask,
    PlannedVariant,
    read_plan,
)
from mmse.ablation.records import FailedTrial, FinishedTrial
from mmse.ablation.registration import update_plan
from mmse.ablation.summary import summarise
from mmse.ablation.trial import next_validation
from mmse.ablation.validations import Validations
from mmse.ablation.verdicts import judge
from mmse.utils.errors import UserError

HEAD = {'task': '', 'recipe': 'r', 'results_version': RESULTS_VERSION, 'data': DATA}


class Runnerless:
    """What a loop asks of its runner before it runs."""

    val_loop = None


class Batches(list):
    dataset = None


def plan_with(looks, *, arms=2, smallest=0.001, secondary=()):
    names = ['plain', *(f'arm {i}' for i in range(1, arms))]
    return Plan(
        name='null',
        start='identity',
        seeds=list(range(looks[-1])),
        results_version=RESULTS_VERSION,
        tasks=[PlannedTask('', 'base.py', 'm', smallest, secondary)],
        arms=[PlannedArm(name, {}) for name in names],
        factors={},
        contrasts=[
            PlannedContrast(name, {name: 1.0, 'plain': -1.0}, '', registered=True)
            for name in names[1:]
        ],
        variants=[
            PlannedVariant('', name, 'r', DATA, 'no attention' if name == 'plain' else 'se', '')
            for name in names
        ],
        looks=looks,
        counted=list(range(looks[-1])),
        smallest_dose=0.05,
    )


def trial(arm, seed, metric, dose=0.2, curve=None, metrics=()):
    return FinishedTrial(
        **HEAD,
        **OF_NO_TRAINING,
        id=f'{arm}-{seed}',
        arm=arm,
        seed=seed,
        metrics={'m': metric, **dict(metrics)},
        curves={'m': curve or [[8, metric]]},
        dose={} if arm == 'plain' else dose_of(dose),
    )


def test_spending_by_the_formula():
    """Lan and DeMets, 1983: 2 - 2 Phi(z / sqrt(t)), with z of 2.5 %."""
    for t in (0.25, 0.5, 1.0):
        by_hand = math.erfc(1.959963984540054 / math.sqrt(t) / math.sqrt(2))
        assert spent(t) == pytest.approx(by_hand, rel=1e-9)
    assert levels([8, 16]) == pytest.approx([0.005575, 0.05 - 0.005575], abs=1e-6)
    assert sum(levels([4, 8, 12])) == pytest.approx(0.05)
    assert levels([8]) == pytest.approx([0.05])


@pytest.mark.slow
def test_the_looks_keep_the_level_together(monkeypatch):
    """A thousand studies without an effect: two contrasts, looked at after 8 and after 12 seeds.

    An error is any contrast that any look says helps or hurts. Looking with the full level each
    time would err more often, which the same studies show.
    """
    looks = [8, 12]
    flips = {n: np.array(list(itertools.product((-1, 1), repeat=n))) / n for n in looks}

    def exact_p(sample):  # as scipy's, a thousand times as fast
        means = abs(flips[len(sample)] @ sample)
        return float((means >= abs(sample.mean()) - 1e-12).mean())

    sample = np.linspace(-1, 2, 8)
    assert exact_p(sample) == stats.sign_flip_p(sample)
    monkeypatch.setattr(stats, 'sign_flip_p', exact_p)
    monkeypatch.setattr(stats, 'bootstrap_interval', lambda *_: (-1.0, 1.0))
    monkeypatch.setattr(gc, 'collect', lambda: None)  # statsmodels' correction calls it each time
    rng = np.random.default_rng(0)
    studies = 1000
    plan = plan_with(looks, arms=3)
    errors = naive = 0
    for _ in range(studies):
        values = rng.standard_t(5, (3, looks[-1]))
        names = [arm.name for arm in plan.arms]
        seen = set()
        wrong = False
        for look in looks:
            ended = [
                trial(name, seed, values[i, seed])
                for i, name in enumerate(names)
                for seed in range(look)
            ]
            contrasts, _ = judge(plan, ended)
            seen |= {c.verdict for c in contrasts}
            p = stats.holm([c.estimate.p for c in contrasts])
            wrong |= min(p) < 0.05
        errors += bool(seen & {'helps', 'hurts'})
        naive += wrong
    tolerance = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert errors / studies <= 0.05 + tolerance
    assert errors > 0  # the rule can reject
    assert naive > errors


def test_verdicts_wait_for_a_look():
    plan = plan_with([4, 8])
    trials = [trial(a, s, s + 5.0 * (a != 'plain')) for a in ('plain', 'arm 1') for s in range(3)]
    (contrast,), notes = judge(plan, trials)
    assert contrast.verdict == 'not yet: 3 of 4 seeds'
    assert 'Look 0 of 2 was reached (at 4 and 8 seeds)' in notes[0]
    trials += [trial(a, s, 5.0 * (a != 'plain')) for a in ('plain', 'arm 1') for s in (3, 4)]
    (contrast,), notes = judge(plan, trials)
    assert sorted(contrast.estimate.differences) == [0, 1, 2, 3]
    assert contrast.verdict.startswith('undecided with 4 seeds')  # p is 0.125 at least
    assert contrast.estimate.level == pytest.approx(levels([4, 8])[0])
    assert 'Seeds beyond the last look that was reached do not count for contrasts yet' in notes[1]


def test_a_contrast_keeps_the_verdict_of_the_look_that_decided_it():
    plan = plan_with([9, 12])
    effect = [2.0 + 0.01 * s for s in range(9)] + [-40.0, -40.0, -40.0]
    trials = [trial('plain', s, 0.0) for s in range(12)]
    trials += [trial('arm 1', s, effect[s]) for s in range(12)]
    early, _ = judge(plan, [t for t in trials if t.seed < 9])
    late, _ = judge(plan, trials)
    assert (early[0].verdict, late[0].verdict) == ('helps', 'helps')
    assert early[0].estimate == late[0].estimate
    # Were it open at the first look, the second would decide it.
    undecided = [replace(t, metrics={'m': t.metrics['m'] * (-1) ** t.seed}) for t in trials]
    (late,), _ = judge(plan, undecided)
    assert len(late.estimate.differences) == 12


@pytest.mark.parametrize('effect', [0.0, 5.0])
def test_an_attention_that_hardly_moved_was_not_tested(effect):
    """A null study whose arms had no dose, and one with a difference that it cannot have made."""
    plan = plan_with([8], smallest=1.0)
    trials = [trial('plain', s, 0.01 * s) for s in range(8)]
    trials += [trial('arm 1', s, effect + 0.02 * s, dose=0.01) for s in range(8)]
    (contrast,), _ = judge(plan, trials)
    assert contrast.verdict == (
        'not tested: the attention hardly moved (dose 0.01 of arm 1, less than 0.05)'
    )
    constant = {b: {**row, 'moved': 0.5} for b, row in dose_of(0.01).items()}
    (contrast,), _ = judge(plan, [replace(t, dose=constant if t.dose else {}) for t in trials])
    assert contrast.verdict == ('no effect larger than 1' if effect == 0 else 'helps')


@pytest.mark.parametrize(
    ('owed', 'words'),
    [
        (0.0, '; hardly anything hangs on the attention'),
        (0.33, '; hardly anything hangs on the attention'),
        (0.34, '; hardly anything is owed to looking at the image'),
    ],
)
def test_gains_on_which_nothing_hangs_are_named(owed, words):
    """As on branches that start at zero: the gains move, and the knock-out changes nothing."""
    plan = plan_with([8], smallest=1.0)
    trials = [trial('plain', s, 0.01 * s) for s in range(8)]
    for seed in range(8):
        done = trial('arm 1', seed, 0.02 * seed)
        change = owed * (-1) ** seed  # what some seeds gain is no less a change
        knock_out = {'start': {'m': done.metrics['m'] - change}, 'mean': dict(done.metrics)}
        trials.append(replace(done, knock_out=knock_out))
    (contrast,), _ = judge(plan, trials)
    assert contrast.verdict == f'no effect larger than 1{words}'


@pytest.mark.parametrize(
    ('owed', 'words'), [(0.33, '; hardly anything is owed to looking at the image'), (0.34, '')]
)
def test_what_is_owed_to_looking_at_the_image_is_a_mean_over_seeds(owed, words):
    plan = plan_with([8], smallest=1.0)
    trials = [trial('plain', s, 0.01 * s) for s in range(8)]
    for seed in range(8):
        done = trial('arm 1', seed, 0.02 * seed)
        held = done.metrics['m'] - owed - 5 * (-1) ** seed  # chance, which cancels out
        trials.append(replace(done, knock_out={'start': {'m': 0.5 - 9}, 'mean': {'m': held}}))
    (contrast,), _ = judge(plan, trials)
    assert contrast.verdict == f'no effect larger than 1{words}'


@pytest.mark.parametrize(('smallest', 'words'), [(39.0, None), (41.0, 'no effect larger than 41')])
def test_steps_are_told_no_finer_than_the_validations_are_apart(smallest, words):
    """Two arms that reach a value 39 iterations after each other read the same."""
    outcome = Outcome('steps', 'steps to 0', smallest)
    plan = plan_with([8], smallest=1.0, secondary=[outcome])
    trials = [
        replace(trial(arm, s, 0.01 * s), curves={'m': [[40, 0.0 if s else -1.0], [80, 1.0]]})
        for arm in ('plain', 'arm 1')
        for s in range(8)
    ]
    trials[0] = replace(trials[0], curves={'m': [[40, 0.0], [80, 1.0]]})
    _, steps = judge(plan, trials)[0]
    assert steps.verdict == (words or 'undecided: validations are 40 iterations apart')


def test_seeds_that_are_missing_are_named():
    plan = plan_with([8], smallest=1.0)
    trials = [trial(a, s, 0.01 * s) for a in ('plain', 'arm 1') for s in range(8)]
    lost = trials.pop()
    trials.append(
        FailedTrial(
            **{**HEAD, 'id': lost.id, 'arm': lost.arm, 'seed': lost.seed},
            environment={},
            reason='exit code 3',
            last_lines=[],
            diverged=True,
        )
    )
    (contrast,), _ = judge(plan, trials)
    assert contrast.verdict == 'undecided with 7 seeds; no value in 1 of 8 seeds'
    late = replace(plan, tasks=[replace(plan.tasks[0], secondary=[Outcome('o', 'm_x', 1.0)])])
    _, outcome = judge(late, trials)[0]
    assert outcome.verdict == 'not tested: no seed has a value for every arm'


def test_plain_networks_with_two_backbones_have_no_attention():
    plan = plan_with([2], smallest=1.0)
    pair = [
        replace(v, attention='; '.join([v.attention] * 2 if v.arm == 'plain' else ['se', 'se']))
        for v in plan.variants
    ]
    assert [variant.attends for variant in pair] == [False, True]


def test_trials_that_did_not_record_their_dose_are_not_believed():
    plan = plan_with([2])
    old = [replace(trial(a, s, 1.0), dose=None) for a in ('plain', 'arm 1') for s in range(2)]
    (contrast,), _ = judge(plan, old)
    assert contrast.verdict == 'not tested: the dose of arm 1 was not recorded'


@pytest.mark.parametrize(
    ('loop', 'after'),
    [
        # MMEngine validates at every interval from val_begin on, and at the end.
        (dict(by_epoch=True, max_epochs=12, val_begin=8, val_interval=1), 13),
        (dict(by_epoch=True, max_epochs=300, val_interval=10), 310),
        (
            dict(by_epoch=True, max_epochs=300, val_interval=10, dynamic_intervals=[(280, 1)]),
            301,
        ),
        (dict(by_epoch=False, max_iters=210, val_interval=100), 300),
        (dict(by_epoch=False, max_iters=240, val_interval=80), 320),
    ],
)
def test_a_value_that_was_never_reached_counts_as_the_next_validation(loop, after):
    data = Batches([0] * 7)
    by_epoch = loop.pop('by_epoch')
    ended = (EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop)(Runnerless(), data, **loop)
    ended._epoch, ended._iter = loop.get('max_epochs', 0), loop.get('max_iters', 0)
    if by_epoch:
        ended._iter = ended._epoch * len(data)
        ended._decide_current_val_interval()
    step = after * (len(data) if by_epoch else 1)
    assert next_validation(ended) == step
    never = replace(trial('plain', 0, 0.4, curve=[[80, 0.1]]), next_validation=step)
    assert never.outcome(Outcome('speed', 'steps to 0.5', 1.0), 'm') == step
    before = trial('plain', 0, 0.4, curve=[[80, 0.1], [160, 0.2]])  # which did not keep it
    assert before.outcome(Outcome('speed', 'steps to 0.5', 1.0), 'm') == 240


def test_spikes_are_as_long_whatever_the_length_of_the_training():
    """Against medians of windows of ten iterations, found one by one."""
    rng = np.random.default_rng(0)
    losses = list(1 + 0.1 * rng.random(20_000))
    assert spikes(losses) == 0
    for start in (5000, 12_000):
        losses[start : start + 10] = [3.0] * 10
    assert spikes(losses) == 2
    means = [statistics.mean(losses[i : i + 10]) for i in range(0, len(losses), 10)]
    above = [m > 1.5 * statistics.median(means[i - 5 : i]) for i, m in enumerate(means) if i > 4]
    assert sum(above) == 2
    # The curve that a trial keeps has points of 200 iterations, in which they drown.
    assert count_spikes([mean for _, mean in averaged(losses, 200)]) == 0


def test_spikes_of_an_older_long_training_are_not_known():
    old = replace(trial('plain', 0, 1.0), loss=[[i, 1.0] for i in range(100)], iterations=88_000)
    assert old.outcome(Outcome('loss spikes', 'spikes', 1.0), 'm') is None
    assert replace(old, spikes=3).outcome(Outcome('loss spikes', 'spikes', 1.0), 'm') == 3.0


def test_losses_that_are_not_finite_are_counted_and_hide_nothing():
    losses = [1.0, math.nan, 3.0, math.inf, math.nan, math.inf, 5.0]
    assert averaged(losses, 2) == [[2, 1.0], [4, 3.0], [7, 5.0]]
    outcome = Outcome('broken', 'non_finite', 1.0)
    assert replace(trial('plain', 0, 1.0), non_finite=4).outcome(outcome, 'm') == 4.0
    assert trial('plain', 0, 1.0).outcome(outcome, 'm') is None  # it was not counted


def test_secondary_outcomes_by_hand():
    outcomes = [
        Outcome('small', 'm_s', 0.1),
        Outcome('saturation', 'saturated', 0.001),
        Outcome('speed', 'steps to 0.5', 1.0),
        Outcome('divergence', 'diverged', 0.1),
        Outcome('loss spikes', 'spikes', 1.0),
    ]
    plan = plan_with([2], secondary=outcomes)
    trials = [
        trial('plain', 0, 0.6, curve=[[4, 0.2], [8, 0.6]], metrics={'m_s': 0.1}),
        trial('plain', 1, 0.4, curve=[[4, 0.2], [8, 0.4]], metrics={'m_s': 0.2}),
        replace(
            trial('arm 1', 0, 0.7, curve=[[4, 0.5], [8, 0.7]], metrics={'m_s': 0.4}),
            # Beside medians of 2: more than 3 is a spike. The first five points have none before.
            loss=[[i, v] for i, v in enumerate([9.0, 2.0, 2.0, 1.0, 2.0, 3.1, 3.0, 2.0, 8.0])],
        ),
        FailedTrial(
            **HEAD,
            id='x',
            arm='arm 1',
            seed=1,
            environment={},
            reason='exit code 3',
            last_lines=[],
            diverged=True,
        ),
    ]
    contrasts, _ = judge(plan, trials)
    found = {c.outcome: c.estimate.differences for c in contrasts}
    assert found == {
        '': {0: pytest.approx(0.1)},
        'small': {0: pytest.approx(0.3)},
        # Not reached by the second plain trial: it counts as the next validation, 12.
        'speed': {0: 4 - 8},
        'divergence': {0: 0.0, 1: 1.0},
        'loss spikes': {0: 2.0},
    }  # and no saturation, which a plain arm does not have
    between = PlannedContrast('between', {'arm 1': 1.0, 'arm 2': -1.0}, '', registered=True)
    plan = replace(plan_with([1], arms=3, secondary=outcomes[1:2]), contrasts=[between])
    contrasts, _ = judge(plan, [trial(a, 0, 1.0) for a in ('plain', 'arm 1', 'arm 2')])
    assert contrasts[1].estimate.differences == {0: 0.0}
    assert trial('arm 1', 0, 1.0).outcome(outcomes[1], 'm') == pytest.approx(0.03)


def test_each_family_is_corrected_for_all_that_is_registered_in_it():
    plan = plan_with([8], arms=3, secondary=[Outcome(f'o{i}', f'm{i}', 0.1) for i in range(3)])
    rng = np.random.default_rng(1)
    trials = [
        trial(a, s, rng.normal(), metrics={f'm{i}': rng.normal() for i in range(3)})
        for a in ('plain', 'arm 1', 'arm 2')
        for s in range(8)
    ]
    contrasts, _ = judge(plan, trials)
    for family in (contrasts[:2], contrasts[2:]):
        smallest = min(family, key=lambda c: c.estimate.p)
        assert smallest.p == pytest.approx(min(1.0, len(family) * smallest.estimate.p))
    assert [c.outcome for c in contrasts] == ['', '', *(f'o{i}' for i in range(3) for _ in '12')]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'of': 'm'}, r'dict\(of=\.\.\., smallest_effect'),
        ({'of': 'steps to x', 'smallest_effect': 1}, r"of: 'steps to x' given"),
        ({'of': 'steps to 1.2.3', 'smallest_effect': 1}, r"of: 'steps to 1.2.3' given"),
        ({'of': 'm', 'smallest_effect': 0}, r'smallest_effect: 0 given'),
        ({'of': 'm', 'smallest_effect': float('nan')}, r'smallest_effect: nan given'),
        ({'of': 'm', 'smallest_effect': float('inf')}, r'smallest_effect: inf given'),
    ],
)
def test_wrong_outcomes_are_named(given, message):
    with pytest.raises(UserError, match=message):
        parse_outcome('o', given, 'secondary.o')


@pytest.mark.parametrize('looks', [[4], [8, 4], [0, 8], [4, 4, 8], 4, []])
def test_wrong_looks_are_named(looks):
    with pytest.raises(UserError, match=r'looks: .* allowed: rising numbers of seeds'):
        check_looks(looks, 8)


def test_seeds_after_the_last_look_are_exploratory(tmp_path):
    """Whoever adds seeds to an undecided study without a look in the plan is told so."""
    results = simulate_study(tmp_path)
    before = summarise(results)
    plan = read_plan(results)
    assert plan.looks == [8]
    more = replace(plan, seeds=list(range(12)), looks=[12])
    written = update_plan(results, more)
    assert (written.looks, len(written.seeds)) == ([8], 12)
    for file in list(results.glob('trials/*-7.json')):
        raw = json.loads(file.read_text())
        raw['metrics']['mIoU'] -= 100.0 * (raw['arm'] != 'plain')
        copy = file.with_name(file.name.replace('-7', '-8'))
        copy.write_text(json.dumps({**raw, 'seed': 8, 'id': copy.stem}))
    after = summarise(results)
    assert [c.estimate for c in after.tasks[0].contrasts] == [
        c.estimate for c in before.tasks[0].contrasts
    ]
    assert any('Seeds 8 were added after trials had ended' in note for note in after.notes)


def test_other_seeds_in_the_place_of_those_that_were_planned(tmp_path):
    results = simulate_study(tmp_path)
    changed = replace(read_plan(results), seeds=[*range(7), 20])
    assert list(update_plan(results, changed).looks) == []
    verdicts = {c.verdict for c in summarise(results).tasks[0].contrasts}
    assert verdicts == {'exploratory: the seeds were changed after trials had ended'}


def test_seeds_of_a_later_look_are_not_swapped_after_a_trial_of_them(tmp_path):
    results = simulate_study(tmp_path)  # of the seeds 0 to 7
    plan = replace(read_plan(results), looks=[8, 16])
    (results / 'plan.json').write_text(json.dumps(asdict(plan)))
    first, second = ([*range(8), *range(s, s + 8)] for s in (8, 100))
    for seeds in (first, second, first):  # no trial of them has ended: they are free
        assert list(update_plan(results, replace(plan, seeds=seeds)).looks) == [8, 16]
    for file in list(results.glob('trials/*-7.json')):
        copy = file.with_name(file.name.replace('-7', '-8'))
        copy.write_text(json.dumps({**json.loads(file.read_text()), 'seed': 8, 'id': copy.stem}))
    swapped = update_plan(results, replace(plan, seeds=second))
    assert (list(swapped.looks), list(swapped.counted)) == ([], first)
    third = [*range(8), *range(200, 208)]
    assert list(update_plan(results, replace(plan, seeds=third)).looks) == []
    again = update_plan(results, replace(plan, seeds=first))
    assert (list(again.looks), list(again.counted)) == ([8, 16], first)
    fewer = update_plan(results, replace(plan, seeds=list(range(8))))
    assert list(fewer.looks) == [8, 16]


def test_a_threshold_of_the_dose_that_came_late(tmp_path):
    results = simulate_study(tmp_path, dose=0.03)
    assert 'not tested' in summarise(results).tasks[0].contrasts[0].verdict
    update_plan(results, replace(read_plan(results), smallest_dose=0.001))
    verdicts = {c.verdict for c in summarise(results).tasks[0].contrasts}
    assert verdicts == {'exploratory: added or changed after the first results'}


def test_fewer_seeds_for_a_while_change_nothing(tmp_path):
    results = simulate_study(tmp_path)
    plan = read_plan(results)
    few = update_plan(results, replace(plan, seeds=[0, 1, 2, 3], counted=[0, 1, 2, 3]))
    assert list(few.looks) == [8]
    verdicts = {c.verdict for c in summarise(results).tasks[0].contrasts}
    assert verdicts == {'not yet: 4 of 8 seeds'}
    again = update_plan(results, plan)
    assert (list(again.looks), list(again.seeds)) == ([8], list(range(8)))
    assert 'helps' in {c.verdict for c in summarise(results).tasks[0].contrasts}


def test_what_the_seeds_can_show_is_said_of_the_contrast_with_most(tmp_path):
    """One that was decided at an early look keeps the seeds of that look."""
    results = simulate_study(tmp_path)
    plan, (task,) = read_plan(results), summarise(results).tasks
    widest = max(abs(bound) for c in task.contrasts for bound in c.estimate.t_interval)
    found = set()
    for smallest in (0.2 * widest, 2.0 * widest, 1000.0):
        tasks = [replace(plan.tasks[0], smallest_effect=smallest)]
        planned = replace(plan, looks=[4, 8], tasks=tasks)
        (results / 'plan.json').write_text(json.dumps(asdict(planned)))
        summary = summarise(results)
        counts = [len(c.estimate.differences) for c in summary.tasks[0].contrasts]
        assert summary.notes[0].startswith(f'{max(counts)} seeds have all arms')
        found.add(max(counts))
    assert found == {4, 8}


@pytest.mark.parametrize(
    ('metric', 'label'),
    [
        ('coco/bbox_mAP', 'bbox mAP (0 to 1)'),
        ('mIoU', 'mIoU (%)'),
        ('accuracy/top1', 'top1 (%)'),
        ('mine/score', 'score'),
    ],
)
def test_units_of_metrics(tmp_path, metric, label):
    (task,) = summarise(simulate_study(tmp_path)).tasks
    assert replace(task, metric=metric).metric_label == label


def test_metrics_that_say_nothing_and_detectors_that_find_nothing(tmp_path):
    """COCOeval gives -1 for sizes that the data lack; mmdet gives no mAP without any box."""
    kept = Validations('coco/bbox_mAP', tmp_path)._kept
    sizes = {'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_s': -1.0, 'coco/bbox_mAP_m': math.nan}
    assert kept(sizes) == {'coco/bbox_mAP': 0.2}
    assert kept({}) == {f'coco/bbox_mAP{of}': 0.0 for of in ('', '_50', '_75')}
    assert kept({'coco/bbox_mAP': -1.0}) == {}  # no object at all
    assert kept({'coco/segm_mAP': 0.1}) == {'coco/segm_mAP': 0.1}  # found, and not asked for
    assert Validations('mIoU', tmp_path)._kept({'change': -1.0}) == {'change': -1.0}


def test_a_change_that_is_taken_back_is_no_loss(tmp_path):
    """Such as ``run --cfg-options start=default seeds=...``, and then the study as it was."""
    results = simulate_study(tmp_path)
    plan, before = read_plan(results), summarise(results).tasks[0].contrasts
    others = [replace(variant, recipe='of random gates') for variant in plan.variants]
    update_plan(results, replace(plan, variants=others, seeds=[20, 21], looks=[2]))
    changed = update_plan(results, replace(plan, smallest_dose=0.01))
    assert not any(contrast.registered for contrast in changed.contrasts)
    update_plan(results, plan)
    assert summarise(results).tasks[0].contrasts == before
    for file in results.glob('trials/*.json'):
        file.unlink()
    update_plan(results, changed)  # nothing has ended: this is a new study
    assert not (results / 'registered.json').exists()


def test_the_text_of_a_pretrainings_config_is_no_question(tmp_path):
    results = simulate_study(tmp_path)
    plan = read_plan(results)
    for text in ('x = 1', 'x = 1  # said in other words'):
        pretraining = PlannedPretraining('base.py', 'mIoU', text)
        tasks = [replace(plan.tasks[0], pretraining=pretraining)]
        written = update_plan(results, replace(plan, tasks=tasks))
        assert all(contrast.registered for contrast in written.contrasts)


def test_an_outcome_that_came_late_is_exploratory_alone(tmp_path):
    results = simulate_study(tmp_path)
    plan, before = read_plan(results), summarise(results).tasks[0].contrasts
    first, late = Outcome('speed', 'steps to 0.5', 1.0), Outcome('late', 'diverged', 0.1)
    for outcomes in ([first], [first, late]):
        tasks = [replace(task, secondary=outcomes) for task in plan.tasks]
        written = update_plan(results, replace(plan, tasks=tasks))
        assert written.tasks[0].exploratory == [outcome.name for outcome in outcomes]
    (task,) = summarise(results).tasks
    assert task.contrasts == before
    assert {c.verdict.partition(':')[0] for c in task.secondary} == {'exploratory'}
    # Also if the file of what was registered is lost.
    (results / 'registered.json').unlink()
    assert update_plan(results, written).tasks[0].exploratory == ['speed', 'late']
    # One that was registered stays, so that the others are corrected for it.
    registered = replace(plan, tasks=[replace(plan.tasks[0], secondary=[first])])
    (results / 'registered.json').unlink(missing_ok=True)
    for changes in ([], [replace(first, smallest_effect=2.0)]):
        (results / 'plan.json').write_text(json.dumps(asdict(registered)))
        tasks = [replace(plan.tasks[0], secondary=changes)]
        written = update_plan(results, replace(plan, tasks=tasks)).tasks[0]
        assert written.secondary[0] == first
        assert [o.name for o in written.secondary[1:]] == list(written.exploratory)
        assert list(written.exploratory) == ['speed, changed'] * len(changes)


def test_a_contrast_that_is_changed_stays_as_it_was(tmp_path):
    results = simulate_study(tmp_path)
    plan, before = read_plan(results), summarise(results).tasks[0].contrasts
    first, *rest = plan.contrasts
    half = replace(first, weights={arm: w / 2 for arm, w in first.weights.items()})
    update_plan(results, replace(plan, contrasts=[half, *rest]))
    *kept, changed = summarise(results).tasks[0].contrasts
    assert [(c.name, c.verdict, c.p) for c in kept] == [(c.name, c.verdict, c.p) for c in before]
    assert (changed.name, changed.registered) == (f'{first.name}, changed', False)
    words = replace(first, description='the same in other words')
    written = update_plan(results, replace(plan, contrasts=[words, *rest]))
    assert all(contrast.registered for contrast in written.contrasts)


def test_a_contrast_that_is_dropped_stays_in_the_family(tmp_path):
    results = simulate_study(tmp_path)
    before = summarise(results).tasks[0].contrasts
    plan = read_plan(results)
    update_plan(results, replace(plan, contrasts=plan.contrasts[1:]))
    after = summarise(results).tasks[0].contrasts
    assert {(c.name, c.p) for c in after} == {(c.name, c.p) for c in before}


def test_another_training_after_the_first_results_is_exploratory(tmp_path):
    results = simulate_study(tmp_path)
    plan = read_plan(results)
    variants = [replace(variant, recipe=f'longer {variant.recipe}') for variant in plan.variants]
    written = update_plan(results, replace(plan, variants=variants))
    assert not any(contrast.registered for contrast in written.contrasts)


def test_seeds_that_all_say_the_same_do_not_exclude_an_effect():
    """Nothing diverged in eight trials of each arm: that does not show that nothing ever does."""
    plan = plan_with([8], secondary=[Outcome('divergence', 'diverged', 0.05)])
    trials = [trial(a, s, 0.1 * s) for a in ('plain', 'arm 1') for s in range(8)]
    _, divergence = judge(plan, trials)[0]
    assert divergence.estimate.t_interval == (0.0, 0.0)
    assert divergence.verdict == 'undecided with 8 seeds'
