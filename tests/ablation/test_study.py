"""The question of an ablation: its arms, contrasts and every mistake in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.engine import CONFIGS

from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve, trials_of
from mmse.utils.errors import UserError

QUESTION = {
    'base': 'configs/fcn_se_r50.py',
    'metric': 'mIoU',
    'smallest_effect': 1.0,
    'overrides': {'model.backbone.attention': {'squeeze': 'avg'}},
    'factors': {
        'squeeze': {
            'avg': {'model.backbone.attention.squeeze': 'avg'},
            'both': {'model.backbone.attention.squeeze': 'avg+max'},
        },
        'residual': {
            'off': {'model.backbone.attention.residual': False},
            'on': {'model.backbone.attention.residual': True},
        },
    },
    'baseline': {'squeeze': 'avg', 'residual': 'off'},
    'arms': {'plain': {'model.backbone.attention': None}},
    'contrasts': {'squeeze': {'of': {'squeeze': 'both'}}},
    'seeds': 2,
}


@pytest.fixture
def study_of(tmp_path, monkeypatch):
    """Reads the question above with some keys changed; a key that is given as None is left out."""
    monkeypatch.chdir(CONFIGS.parent)

    def read(**changes):
        keys = {k: v for k, v in {**QUESTION, **changes}.items() if v is not None}
        file = tmp_path / 'question.py'
        file.write_text('\n'.join(f'{k} = {v!r}' for k, v in keys.items()))
        return read_study(file)

    return read


def weights(study, name):
    return next(dict(c.weights) for c in study.contrasts if c.name == name)


def test_full_grid_has_every_combination_and_the_arms_of_their_own(study_of):
    assert [arm.name for arm in study_of().arms] == [
        'plain',
        'squeeze=avg, residual=off',
        'squeeze=avg, residual=on',
        'squeeze=both, residual=off',
        'squeeze=both, residual=on',
    ]


def test_one_at_a_time_keeps_the_other_factors_at_the_baseline(study_of):
    study = study_of(grid='one_at_a_time')
    assert [arm.name for arm in study.arms] == ['plain', 'baseline', 'squeeze=both', 'residual=on']
    assert weights(study, 'squeeze') == {'squeeze=both': 1, 'baseline': -1}


def test_excluded_combinations_have_no_arm_and_no_pair(study_of):
    study = study_of(exclude=[{'squeeze': 'both', 'residual': 'on'}])
    assert len(study.arms) == 4
    assert weights(study, 'squeeze') == {
        'squeeze=both, residual=off': 1,
        'squeeze=avg, residual=off': -1,
    }


def test_main_effect_and_interaction_are_those_of_a_two_by_two_by_hand(study_of):
    study = study_of(
        contrasts={
            'main': {'of': {'squeeze': 'both'}},
            'interaction': {'interaction': {'squeeze': 'both', 'residual': 'on'}},
            'simple': {'of': {'squeeze': 'both', 'residual': 'on'}, 'against': 'plain'},
        }
    )
    metric = dict(zip((arm.name for arm in study.arms), (7.0, 1.0, 2.0, 4.0, 9.0), strict=True))

    def value(name):
        return sum(w * metric[arm] for arm, w in weights(study, name).items())

    assert value('main') == ((4 - 1) + (9 - 2)) / 2
    assert value('interaction') == (9 - 2) - (4 - 1)
    assert value('simple') == 9 - 7


def test_interaction_is_averaged_over_a_third_factor(study_of):
    third = {
        'sigmoid': {'model.backbone.attention.gate': 'sigmoid'},
        'hard': {'model.backbone.attention.gate': 'hardsigmoid'},
    }
    study = study_of(
        factors={**QUESTION['factors'], 'gate': third},
        baseline={**QUESTION['baseline'], 'gate': 'sigmoid'},
        contrasts={'i': {'interaction': {'squeeze': 'both', 'residual': 'on'}}},
    )
    assert sorted(weights(study, 'i').values()) == [-0.5] * 4 + [0.5] * 4
    assert weights(study, 'i')['squeeze=both, residual=on, gate=hard'] == 0.5


def test_overrides_of_the_command_line_change_the_question(study_of, tmp_path):
    study_of()
    study = read_study(tmp_path / 'question.py', {'seeds': [4, 7], 'grid': 'one_at_a_time'})
    assert study.seeds == [4, 7]
    assert len(study.arms) == 4


# By what the error says is allowed there, keys of the config and values.
KINDS = {
    'a dict of': [
        ('arms', ['plain']),
        ('arms', {'plain': None, 'b': {}}),
        ('arms', {'plain': 'model.backbone.attention=None', 'b': {}}),
        ('factors', ['squeeze']),
        ('factors', {'squeeze': ['avg', 'max']}),
        ('factors', {'squeeze': {'avg': None, 'both': {}}}),
        ('baseline', ['avg']),
        ('contrasts', ['squeeze']),
        ('contrasts', {'c': 'plain'}),
        ('contrasts', {'c': {'interaction': 'plain'}}),
        ('across', ['squeeze']),
        ('overrides', ['model.backbone.attention']),
        ('pretraining', 'work_dirs/plain.pth'),
        ('pretraining', {'base': 'b.py', 'metric': 'mIoU', 'overrides': 3}),
        ('secondary', ['mAcc']),
        ('exclude', ['squeeze']),
    ],
    'a list of dicts': [('exclude', {'squeeze': 'avg'})],
    'text that is not empty': [
        ('base', 3),
        ('metric', ['mIoU']),
        ('metric', ''),
        ('arms', {1: {}, 2: {}}),
        ('factors', {'reduction': {16: {}, 8: {}}}),
        ('contrasts', {1: {'of': {'squeeze': 'both'}}}),
        ('contrasts', {'c': {'of': {'squeeze': ['both']}}}),
        ('pretraining', {'base': 1, 'metric': 'mIoU'}),
    ],
    'a number': [
        ('smallest_effect', True),
        ('smallest_dose', '0.1'),
        ('attention_lr_mult', True),
        ('seeds', True),
        ('seeds', 2.0),
        ('seeds', [0, True]),
    ],
    'rising numbers': [('looks', [True, 2])],
}


@pytest.mark.parametrize(
    ('key', 'value', 'allowed'),
    [(key, value, allowed) for allowed, given in KINDS.items() for key, value in given],
)
def test_a_value_of_another_kind_is_named(study_of, key, value, allowed):
    with pytest.raises(UserError, match=f'{key}.* given; allowed: {allowed}'):
        study_of(**{key: value})


def test_a_task_that_is_no_dict_is_named(study_of):
    of_the_task = dict.fromkeys(('base', 'metric', 'smallest_effect', 'overrides'))
    with pytest.raises(UserError, match=r'tasks.a: 3 given; allowed: a dict of'):
        study_of(tasks={'a': 3}, **of_the_task)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'metrics': 'mIoU'}, 'unknown key metrics; did you mean metric'),
        ({'metric': None}, 'metric is missing'),
        ({'smallest_effect': 0}, 'smallest_effect: 0 given; allowed: a number above 0'),
        ({'seeds': [1, 1]}, r'seeds: \[1, 1\] given'),
        ({'seeds': 0}, 'seeds: 0 given'),
        ({'start': 'random'}, "start: 'random' given; allowed: identity, default"),
        ({'grid': 'half'}, "grid: 'half' given; allowed: full, one_at_a_time"),
        ({'baseline': {'squeeze': 'avg'}}, 'baseline.residual is missing: one of off, on'),
        ({'baseline': {'squeeze': 'ag', 'residual': 'on'}}, 'no level ag; did you mean avg'),
        ({'exclude': [{'sqeeze': 'avg'}]}, r'exclude\[0\]: there is no factor sqeeze; did you'),
        ({'factors': {'squeeze': {'avg': {}}}, 'baseline': {}}, 'factors.squeeze has 1 level'),
        ({'factors': None, 'arms': None, 'baseline': None}, 'there is nothing to compare'),
        (
            {'contrasts': {'c': {'of': {'squeeze': 'max'}}}},
            'contrasts.c.of.squeeze: .* no level max',
        ),
        ({'contrasts': {'c': {'of': 'plane'}}}, 'contrasts.c.against is missing'),
        ({'contrasts': {'c': {'of': 'plane', 'against': 'plain'}}}, "no arm 'plane'"),
        ({'contrasts': {'c': {'off': 'plain'}}}, 'allowed: of and against, or interaction'),
        ({'contrasts': {'c': {'of': {'squeeze': 'avg'}}}}, 'no two arms differ in squeeze alone'),
        ({'contrasts': {'c': {'interaction': {'squeeze': 'both'}}}}, 'give two factors'),
        (
            {'contrasts': {'c': {'of': {'squeeze': 'both'}, 'against': 'plain'}}},
            'squeeze=both names 2 arms',
        ),
        (
            {
                'exclude': [{'squeeze': 'both', 'residual': 'off'}],
                'contrasts': {'c': {'interaction': {'squeeze': 'both', 'residual': 'on'}}},
            },
            'has not all four arms',
        ),
        ({'tasks': {'a': {}}}, 'stands beside tasks'),
    ],
)
def test_mistakes_are_named(study_of, changes, message):
    with pytest.raises(UserError, match=message):
        study_of(**changes)


def test_a_config_that_is_not_there_is_named():
    with pytest.raises(UserError, match='no such config'):
        read_study('configs/ablations/nowhere.py')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'overrides': {'model.backbone.detph': 18}},
            'no model.backbone.detph; did you mean model.backbone.depth',
        ),
        (
            {'arms': {'x': {'model.backbone.attention.squeze': 'avg'}}},
            "arm 'x'.*attention.squeze; did you mean squeeze",
        ),
        ({'arms': {'x': {'model.backbone.attention.gate': 'sigmoid'}}}, 'resolve to the same'),
        (
            {'arms': {'x': {'model.backbone.attention': {'squeeze': 'avg', 'fusion': 'sum'}}}},
            "'x' and 'squeeze=avg, residual=off' resolve to the same",
        ),
        ({'metric': 'mIOU'}, 'does not give mIOU; did you mean mIoU'),
        ({'metric': 'coco/bbox_mAP'}, 'does not give coco/bbox_mAP; there are aAcc, mIoU, mAcc'),
        ({'metric': 'depth/abs_rel'}, 'metric: depth/abs_rel is the better the smaller it is'),
        ({'metric': 'val_loss'}, 'metric: val_loss is the better the smaller it is'),
        ({'metric': 'a/loss_bbox'}, 'metric: a/loss_bbox is the better the smaller it is'),
        ({'base': 'configs/fcn_se_r5.py'}, 'no such config; did you mean configs/fcn_se_r50.py'),
        ({'base': 'configs/_base_/models/fcn_se.py'}, 'has no train_dataloader'),
    ],
)
def test_what_does_not_fit_the_base_config_is_named(study_of, changes, message):
    study = study_of(**changes)
    with pytest.raises(UserError, match=message):
        resolve(study)


def test_a_key_that_only_the_class_knows_is_accepted(study_of):
    study = study_of(arms={'frozen': {'model.backbone.train_frozen_attention': True}})
    assert len(resolve(study)) == 5


def test_arms_differ_in_their_attention_alone(study_of):
    variants = {v.arm.name: v for v in resolve(study_of())}
    base = variants['squeeze=avg, residual=off'].cfg.to_dict()
    other = variants['squeeze=both, residual=on'].cfg.to_dict()
    assert base['model']['backbone'].pop('attention') == {'squeeze': 'avg', 'residual': False}
    assert other['model']['backbone'].pop('attention') == {'squeeze': 'avg+max', 'residual': True}
    assert base == other
    assert variants['plain'].attention == 'no attention'
    assert variants['squeeze=both, residual=on'].attention.startswith('avg+max (softmax)')


def test_a_plain_backbone_of_theirs_becomes_ours(study_of):
    study = study_of(
        base='mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
        overrides=None,
        factors=None,
        baseline=None,
        contrasts=None,
        arms={
            'plain': {'model.backbone.attention': None},
            'se': {'model.backbone.attention': 'se'},
        },
    )
    plain, attention = resolve(study)
    assert plain.cfg.model.backbone.type == 'mmse.SEResNetV1c'
    assert attention.attention.startswith('avg, C/16 (min 1), relu')


def test_trials_are_ordered_by_seed_and_named_by_all_that_shapes_them(study_of):
    study = study_of()
    trials = trials_of(resolve(study), study.seeds)
    assert [t.seed for t in trials] == [0] * 5 + [1] * 5
    assert len({t.id for t in trials}) == 10
    again = study_of(overrides={**QUESTION['overrides'], 'model.backbone.depth': 101})
    assert not {t.id for t in trials} & {t.id for t in trials_of(resolve(again), again.seeds)}
    default = study_of(start='default')
    assert not {t.id for t in trials} & {t.id for t in trials_of(resolve(default), default.seeds)}
    # Where it runs and what it logs shape nothing.
    quiet = {'log_level': 'WARNING', 'default_hooks.logger.interval': 7}
    same = study_of(overrides={**QUESTION['overrides'], **quiet})
    assert {t.id for t in trials} == {t.id for t in trials_of(resolve(same), same.seeds)}


# Where C // 16 is below 4 in some block.
NARROW = ('det', 'seg', 'bccd', 'camvid')


NEEDS_MMPRETRAIN = 'squeeze_by_task'
SHIPPED = sorted(p.stem for p in (CONFIGS / 'ablations').glob('*.py'))


@pytest.mark.parametrize('name', [name for name in SHIPPED if name != NEEDS_MMPRETRAIN])
def test_shipped_questions_fit_their_base_configs(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    study = read_study(Path('configs/ablations') / f'{name}.py')
    variants = resolve(study)
    assert len({v.recipe for v in variants}) == len(study.arms) * len(study.tasks)
    arms, contrasts = {
        'squeeze': (5, 4),
        'checklist': (13, 11) if name.endswith(NARROW) else (12, 10),
        'default': (5, 4),
        'dose': (5, 0),
        'pretrained': (5, 4),
        'steadiness': (7, 3),
    }[name.partition('_')[0]]
    assert (len(study.arms), len(study.contrasts)) == (arms, contrasts)


BY_TASK = f"""
from mmse.benchmark.peers import import_peers
import_peers()
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
study = read_study('configs/ablations/{NEEDS_MMPRETRAIN}.py')
for variant in resolve(study):
    print(variant.task.name, variant.arm.name, variant.recipe)
print(study.across[0].weights)
"""


@pytest.mark.slow
def test_the_question_of_three_tasks(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(UserError, match=r'mmpretrain.* is needed for configs/classification'):
        resolve(read_study(f'configs/ablations/{NEEDS_MMPRETRAIN}.py'))
    done = subprocess.run([sys.executable, '-c', BY_TASK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, weights = done.stdout.splitlines()[-10:]
    assert len({line.split()[-1] for line in lines}) == 9
    assert weights == "{'detection': 0.5, 'segmentation': 0.5, 'classification': -1.0}"
    # Detector and segmenter are those of the claim on each of them.
    for task, name in (('detection', 'det'), ('segmentation', 'seg')):
        other = resolve(read_study(f'configs/ablations/squeeze_x_residual_{name}.py'))
        recipes = {v.arm.name: v.recipe for v in other}
        for own, arm in (('plain', 'plain'), ('avg+max', 'squeeze=avg+max, residual=off')):
            assert f'{task} {own} {recipes[arm]}' in lines


def test_the_checklist_can_be_crossed(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    study = read_study('configs/ablations/checklist_det.py', {'grid': 'full'})
    assert len(study.arms) == 4 * 2 * 2 * 2 * 3 * 3 * 2 + 1
    main = study.contrasts[0]
    assert len(main.weights) == 2 * (2 * 2 * 2 * 3 * 3 * 2)
    assert sum(main.weights.values()) == pytest.approx(0)


def test_a_learning_rate_for_the_attention_in_any_base(study_of):
    study = study_of(
        base='mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py', attention_lr_mult=5, seeds=1
    )
    for variant in resolve(study):
        keys = variant.cfg.optim_wrapper.paramwise_cfg.custom_keys
        for name in ('attention.fc1.weight', 'attention.alpha', 'attention.fusion_logits'):
            assert keys[name]['lr_mult'] == 5
    with pytest.raises(UserError, match=r'attention_lr_mult: 0 given; allowed: a number above 0'):
        study_of(attention_lr_mult=0)
