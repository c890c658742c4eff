"""A simulated study with known effects, for tests of its report."""

from typing import Any

import numpy as np
from mmengine.config import Config
from support.ablations import ATTENTION, write_study

from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.plan import plan_of
from mmse.ablation.records import FinishedTrial
from mmse.ablation.registration import update_plan
from mmse.ablation.study import read_study
from mmse.ablation.variants import Trial, Variant

SEEDS = 8
DATA = 'd' * 64
LEVELS = {
    'squeeze': {'avg': {ATTENTION: 'se'}, 'both': {ATTENTION: 'se_avgmax'}},
    'residual': {'off': {}, 'on': {ATTENTION: 'sepp_v2_residual'}},
}
# Metric of each arm without noise: residual gating adds 2, avg+max nothing, plain is 1 below.
TRUTH = {
    'plain': 49.0,
    'squeeze=avg, residual=off': 50.0,
    'squeeze=avg, residual=on': 52.0,
    'squeeze=both, residual=off': 50.0,
    'squeeze=both, residual=on': 52.0,
}


# What a trial's file holds of a training, where none was.
OF_NO_TRAINING: dict[str, Any] = {
    'environment': {},
    'loss': [],
    'iterations': 8,
    'training_time_s': 1.0,
    'step_time_s': 1.0,
    'peak_memory_bytes': 1,
    'parameters': 1,
    'scalars': {},
    'cpu_threads': 1,
    'log': [],
}


def simulate_study(tmp_path, dose=0.2, **question):
    """Results of a two by two with a known effect: large seed noise, small noise of the arms.

    Its attention has moved by ``dose``.
    """
    file = write_study(
        tmp_path,
        'configs/fcn_se_r50.py',
        factors=LEVELS,
        baseline={'squeeze': 'avg', 'residual': 'off'},
        arms={'plain': {ATTENTION: None}},
        contrasts={
            'avg+max squeeze': {'of': {'squeeze': 'both'}},
            'residual gating': {'of': {'residual': 'on'}},
        },
        **{'seeds': SEEDS, **question},
    )
    study = read_study(file)
    cfg = Config({'model': {'type': 'EncoderDecoder', 'note': '<b>bold</b>'}})
    variants = [Variant(study.tasks[0], arm, cfg, 'identity') for arm in study.arms]
    for variant in variants:
        plain = variant.arm.name == 'plain'
        vars(variant).update(
            recipe=f'recipe of {variant.arm.name}',
            attention='no attention' if plain else 'described',
        )
    results = tmp_path / 'results'
    trials = [Trial(variant, seed, DATA) for seed in study.seeds for variant in variants]
    update_plan(results, plan_of(study, trials))
    rng = np.random.default_rng(0)
    for seed in study.seeds:
        common = rng.normal(0, 5)
        for variant in variants:
            metric = TRUTH[variant.arm.name] + common + rng.normal(0, 0.2)
            write_trial(results, variant, seed, metric, dose)
    return results


def dose_of(moved):
    """The dose of two blocks that have moved equally."""
    row = {'moved': moved, 'mean': 1.0, 'over_channels': 0.0, 'over_images': moved}
    shares = {'closed': 0.01, 'open': 0.02}
    return {block: {**row, **shares} for block in ('layer1.0', 'layer2.0')}


def write_trial(results, variant, seed, metric, dose=0.2):
    name = variant.arm.name
    attended = name != 'plain' and dose is not None
    stages = {f'layer{i}': [0.4 + 0.05 * i, 0.5] for i in range(1, 5)}
    record = FinishedTrial(
        id=f'{name}-{seed}'.replace(', ', '_'),
        task='',
        arm=name,
        seed=seed,
        recipe=variant.recipe,
        results_version=RESULTS_VERSION,
        data=DATA,
        environment={'torch': '2', 'device': 'CPU'},
        commit='0123456789',
        metrics={'mIoU': metric},
        curves={'mIoU': [[4, metric / 2], [8, metric]]},
        loss=[[1, 2.0], [8, 1.0]],
        iterations=8,
        training_time_s=60.0,
        step_time_s=1.0 if name == 'plain' else 1.1,
        peak_memory_bytes=2**30,
        parameters=1000,
        scalars={'weight_of_avg': stages} if 'both' in name else {},
        cpu_threads=1,
        dose=(dose_of(dose) if attended else {}) if dose is not None else None,
        dose_curve=[[4, dose / 2, dose / 2], [8, dose, dose]] if attended else [],
        knock_out={
            'start': {'mIoU': metric - 3.0},
            'mean': {'mIoU': metric - 1.0},
        }
        if attended
        else {},
        log=['Iter(train) [8/8] loss: 1.0 <script>alert(1)</script>'],
    )
    record.write(results / 'trials' / f'{record.id}.json')
