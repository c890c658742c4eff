"""The ablations' figures in README and docs are those of the committed trial files."""

import json
import re
import shutil
from pathlib import Path

import pytest

from mmse.ablation.report import write_report
from mmse.ablation.summary import summarise
from mmse.models.settings import PRESETS

ROOT = Path(__file__).parents[2]
STUDIES = [ROOT / 'results/ablations' / f'squeeze_x_residual_{task}' for task in ('det', 'seg')]
TUTORIAL = ROOT / 'results/tutorial'


def words(page: str) -> str:
    """A page's text, its white space made single spaces."""
    return ' '.join((ROOT / page).read_text(encoding='utf-8').split())


@pytest.mark.parametrize('study', [*STUDIES, TUTORIAL], ids=lambda study: study.name)
def test_reports_are_what_the_trial_files_give(study, tmp_path):
    shutil.copytree(study / 'trials', tmp_path / 'trials')
    shutil.copy(study / 'plan.json', tmp_path)
    write_report(tmp_path)
    assert (tmp_path / 'report.md').read_text() == (study / 'report.md').read_text()


@pytest.mark.parametrize('study', STUDIES, ids=lambda study: study.name)
def test_estimates_in_the_table_of_results(study):
    (task,) = summarise(study).tasks
    (row,) = [
        line
        for line in (ROOT / 'results/README.md').read_text().splitlines()
        if f'({study.relative_to(ROOT / "results")}/report.md)' in line and line[0] == '|'
    ]
    digits = len(re.search(r'[+-]\d\.(\d+)', row)[1])
    shown = [
        f'{c.estimate.mean:+.{digits}f} '
        f'({c.estimate.t_interval[0]:+.{digits}f} to {c.estimate.t_interval[1]:+.{digits}f})'
        for c in task.contrasts
    ]
    assert [cell.strip() for cell in row.strip('| ').split('|')][2:] == shown


def test_sentences_of_readme():
    text = words('README.md')
    (det,) = summarise(ROOT / 'results/ablations/squeeze_x_residual_det').tasks
    (seg,) = summarise(ROOT / 'results/ablations/squeeze_x_residual_seg').tasks
    for name, of in re.findall(r'(avg\+max squeeze|residual gating) (-0\.\d+ [^)]*\))', text):
        (found,) = [c.estimate for c in det.contrasts if c.name == name]
        numbers = [float(number) for number in re.findall(r'[+-]\d\.\d+', of)]
        assert numbers == pytest.approx([found.mean, *found.t_interval], abs=0.0005001)
    assert len(re.findall(r'(?:squeeze|gating) -0\.\d+ ', text)) == 2
    (limit,) = re.findall(r'ends within (\S+) points of mIoU', text)
    bounds = [abs(b) for c in seg.contrasts[:2] for b in c.estimate.t_interval]
    assert float(limit) - 0.1 < max(bounds) < float(limit)


@pytest.mark.parametrize(
    ('page', 'study', 'contrasts'),
    [
        ('ablations', ROOT / 'results/ablations/squeeze_x_residual_seg', 4),
        ('tutorial', TUTORIAL, 1),
    ],
)
def test_worked_example_is_the_report(page, study, contrasts):
    rows = [
        [cell.strip() for cell in line.strip('| ').split('|')]
        for line in (ROOT / f'docs/{page}.md').read_text().splitlines()
        if re.match(r'\| .* \| [+-]\d', line)
    ]
    report = (study / 'report.md').read_text()
    for name, mean, interval, p, verdict in rows:
        assert re.search(
            rf'^\| {re.escape(name)} \|.*\| {re.escape(mean)} \| {re.escape(interval)} \|'
            rf'.*\| {re.escape(p)} \| {re.escape(verdict)} \|$',
            report,
            re.M,
        ), name
    assert len(rows) == contrasts


def test_parity_table_is_what_was_measured():
    measured = json.loads((ROOT / 'results/onnx_parity.json').read_text())
    rows = re.findall(
        r'^\| [^|]*`(\w+)` \| (\S+e-\d+) \| (\S+e-\d+) \|$',
        (ROOT / 'docs/production.md').read_text(),
        re.M,
    )
    assert rows == [
        (case, *(f'{max(forms[form].values()):.1e}' for form in ('as it is', 'folded')))
        for case, forms in measured.items()
    ]
    assert set(PRESETS) < set(measured)
