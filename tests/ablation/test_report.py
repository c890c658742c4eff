"""The report from trial files alone: its numbers, its words, and the page in a browser."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from support.ablations import ATTENTION, write_study

from mmse.ablation.identity import RESULTS_VERSION
from mmse.ablation.plan import plan_of, update_plan
from mmse.ablation.records import FailedTrial, FinishedTrial
from mmse.ablation.report import status_table, write_report
from mmse.ablation.study import read_study
from mmse.ablation.summary import summarise
from mmse.ablation.variants import Trial, Variant
from mmse.utils.errors import UserError

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


@pytest.fixture
def simulated(tmp_path):
    """Results of a two by two with a known effect: large seed noise, small noise of the arms."""
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
        seeds=SEEDS,
    )
    study = read_study(file)
    cfg = Config({'model': {'type': 'EncoderDecoder', 'note': '<b>bold</b>'}})
    variants = [Variant(study.tasks[0], arm, cfg, 'identity') for arm in study.arms]
    for variant in variants:
        vars(variant).update(recipe=f'recipe of {variant.arm.name}', attention='described')
    results = tmp_path / 'results'
    trials = [Trial(variant, seed, DATA) for seed in study.seeds for variant in variants]
    update_plan(results, plan_of(study, trials))
    rng = np.random.default_rng(0)
    for seed in range(SEEDS):
        common = rng.normal(0, 5)
        for variant in variants:
            write_trial(
                results, variant, seed, TRUTH[variant.arm.name] + common + rng.normal(0, 0.2)
            )
    return results


def write_trial(results, variant, seed, metric):
    name = variant.arm.name
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
        log=['Iter(train) [8/8] loss: 1.0 <script>alert(1)</script>'],
    )
    record.write(results / 'trials' / f'{record.id}.json')


def contrast(summary, name):
    return next(c for c in summary.tasks[0].contrasts if c.name == name)


def test_known_effects_are_found_and_no_others(simulated):
    summary = summarise(simulated)
    residual, squeeze = (contrast(summary, n) for n in ('residual gating', 'avg+max squeeze'))
    assert residual.estimate.mean == pytest.approx(2, abs=0.3)
    assert residual.verdict == 'helps'
    # All eight differences are positive: 2 / 2^8, times two contrasts.
    assert residual.estimate.p == pytest.approx(2 / 2**8)
    assert residual.p == pytest.approx(4 / 2**8)
    assert squeeze.estimate.t_interval[0] < 0 < squeeze.estimate.t_interval[1]
    assert squeeze.verdict == 'no effect larger than 1'
    arms = {arm.name: arm for arm in summary.tasks[0].arms}
    assert arms['squeeze=both, residual=on'].against_first.mean == pytest.approx(3, abs=0.3)
    assert arms['squeeze=avg, residual=on'].time_ratio == pytest.approx(1.1)
    assert 'the smallest two-sided p that they can give is 0.0078' in summary.notes[0]


def test_differences_are_those_of_the_files(simulated):
    files = [json.loads(f.read_text()) for f in (simulated / 'trials').iterdir()]
    metric = {(f['arm'], f['seed']): f['metrics']['mIoU'] for f in files}
    found = contrast(summarise(simulated), 'residual gating').estimate
    for seed in range(SEEDS):
        by_hand = sum(
            metric[f'squeeze={s}, residual=on', seed] - metric[f'squeeze={s}, residual=off', seed]
            for s in ('avg', 'both')
        )
        assert found.differences[seed] == pytest.approx(by_hand / 2)


def test_too_few_seeds_are_said_to_be_too_few(simulated):
    for seed in range(3, SEEDS):
        for file in simulated.glob(f'trials/*-{seed}.json'):
            file.unlink()
    summary = summarise(simulated)
    assert 'no effect of any size can reach 0.05: that takes 7 seeds' in summary.notes[0]
    assert contrast(summary, 'residual gating').verdict == 'undecided with 3 seeds'


def test_markdown_has_every_figure_and_verdict(simulated):
    write_report(simulated)
    text = (simulated / 'report.md').read_text()
    assert re.search(r'\| residual gating \| residual=on - residual=off.* \| helps \|', text)
    pictures = re.findall(r'!\[[^\]]+\]\(([^)]+)\)', text)
    assert [p.split('/')[1] for p in pictures] == [
        'contrasts.png',
        'seeds.png',
        'curves.png',
        'cost.png',
        'scalars.png',
    ]
    for picture in pictures:
        pixels = np.asarray(Image.open(simulated / picture).convert('L'))
        assert 0.002 < (pixels < 128).mean() < 0.5
    assert not list(simulated.rglob('*.part*'))


def test_a_report_is_made_from_the_files_alone_and_always_the_same(simulated, tmp_path):
    write_report(simulated)
    moved = tmp_path / 'elsewhere'
    shutil.copytree(simulated, moved)
    (tmp_path / 'question.py').unlink()
    first = {f.name: f.read_bytes() for f in moved.glob('report.*')}
    write_report(moved)
    assert first == {f.name: f.read_bytes() for f in moved.glob('report.*')}


def test_nothing_to_report_is_said(tmp_path, simulated):
    with pytest.raises(UserError, match=r'has no plan\.json: run the ablation first'):
        write_report(tmp_path / 'nowhere')
    shutil.rmtree(simulated / 'trials')
    with pytest.raises(UserError, match='no finished trial to report'):
        write_report(simulated)
    assert not list(simulated.glob('report.*'))


def test_a_broken_trial_file_is_named(simulated):
    (simulated / 'trials/half.json').write_text('{"arm": ')
    with pytest.raises(UserError, match=r'half\.json is not a trial file'):
        summarise(simulated)


@pytest.mark.parametrize('change', [{'results_version': None}, {'code': 'abc'}, {'status': 'odd'}])
def test_a_trial_file_of_another_form_is_named(simulated, change):
    """Such as those that were written before trials had a results version."""
    file = next(simulated.glob('trials/plain-0.json'))
    kept = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    with pytest.raises(UserError, match=r'plain-0\.json is not a trial file of this version'):
        summarise(simulated)


def test_provenance_is_said(simulated):
    said = summarise(simulated).provenance
    assert said == ('Results version 1, data dddddddddddd, commit 0123456789; torch 2, device CPU')


def test_failed_trials_are_listed(simulated):
    FailedTrial(
        id='failed',
        task='',
        arm='plain',
        seed=9,
        recipe='recipe of plain',
        results_version=RESULTS_VERSION,
        data=DATA,
        environment={},
        reason='exit code 1',
        last_lines=['no memory'],
    ).write(simulated / 'trials/failed.json')
    write_report(simulated)
    assert 'plain, seed 9: exit code 1; no memory' in (simulated / 'report.md').read_text()
    assert 'failed: failed: exit code 1' in status_table(simulated)


CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chrome')


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=['desktop', 'phone'])
def page(request, simulated):
    """The report in a headless browser that is offline."""
    if CHROMIUM is None:
        pytest.skip('no Chromium on this machine: the page is not opened')
    from playwright.sync_api import sync_playwright

    write_report(simulated)
    width, height = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        context = browser.new_context(viewport={'width': width, 'height': height}, offline=True)
        page = context.new_page()
        errors = []
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.on('request', lambda r: errors.append(r.url) if r.url.startswith('http') else None)
        page.goto((simulated / 'report.html').as_uri())
        yield page
        assert errors == []
        browser.close()


def test_the_page_sorts_expands_and_fits(page, simulated, request):
    # The page is as wide as the screen; only tables scroll within it.
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    trials = page.locator('table.sortable').last
    values = 'rows => rows.map(r => Number(r.cells[2].dataset.value))'
    head = trials.locator('th button').nth(2)
    head.click()
    shown = trials.locator('tbody tr').evaluate_all(values)
    assert shown == sorted(shown)
    assert trials.locator('th').nth(2).get_attribute('aria-sort') == 'ascending'
    head.click()
    shown = trials.locator('tbody tr').evaluate_all(values)
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == SEEDS * len(TRUTH)
    config = page.locator('details.config').first
    assert not config.locator('pre').is_visible()
    config.locator('summary').click()
    assert '<b>bold</b>' in config.locator('pre').inner_text()
    log = page.locator('details.log').first
    log.locator('summary').click()
    assert '<script>alert(1)</script>' in log.locator('pre').inner_text()
    widths = page.locator('img').evaluate_all('images => images.map(i => i.naturalWidth)')
    assert len(widths) == 5
    assert min(widths) > 500
    page.screenshot(path=str(simulated / 'page.png'), full_page=True)
    assert (simulated / 'page.png').stat().st_size > 50_000


def test_the_page_holds_its_pictures_itself(simulated):
    write_report(simulated)
    text = (simulated / 'report.html').read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    files = {f.read_bytes() for f in (simulated / 'figures').iterdir()}
    assert {base64.b64decode(image) for image in images} == files
    assert not re.search(r'(src|href)="https?:', text)
