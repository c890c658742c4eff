"""What the pages say of the studies is what the trial files give."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from mmse.ablation.report import write_report
from mmse.ablation.summary import summarise

ROOT = Path(__file__).parents[2]
STUDIES = sorted(file.parent for file in (ROOT / 'results/ablations').glob('*/plan.json'))


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    return runpy.run_path('tools/experiments/claims.py')


@pytest.mark.slow
def test_the_page_of_claims_is_what_the_trials_give(claims: dict[str, Any]) -> None:
    assert (ROOT / 'results/claims.md').read_text(encoding='utf-8') == claims['page']()


@pytest.mark.slow
def test_the_verdicts_in_the_readme(claims: dict[str, Any]) -> None:
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    verdicts = {row.said: row.cells[2] for row in claims['rows'](claims['studied']())}
    tables = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in readme.splitlines()
        if line.startswith('|')
    ]
    on = next(row[1:] for row in tables if row[0] == 'claim')
    rows = [row for row in tables if f'{row[0]} ({on[0]})' in verdicts]
    assert len(rows) == 4
    mark = '; hardly anything is owed to looking at the image'
    assert '\\* Hardly anything is owed to looking at the image' in readme
    for said, *cells in rows:
        assert [cell.replace(' *', mark) for cell in cells] == [
            verdicts[f'{said} ({each})'] for each in on
        ]


@pytest.mark.slow
@pytest.mark.parametrize('study', STUDIES, ids=lambda study: study.name)
def test_reports_are_what_the_trial_files_give(study: Path, tmp_path: Path) -> None:
    (tmp_path / 'trials').symlink_to(study / 'trials')
    (tmp_path / 'plan.json').symlink_to(study / 'plan.json')
    write_report(tmp_path)
    assert (tmp_path / 'report.md').read_text() == (study / 'report.md').read_text()


@pytest.mark.parametrize('names', [('det', 'seg'), ('pretrained_bccd', 'pretrained_camvid')])
def test_the_dose_curve(names: tuple[str, str]) -> None:
    rows = []
    tasks = [summarise(ROOT / f'results/ablations/dose_{name}').tasks[0] for name in names]
    for pair in zip(*(task.attended for task in tasks), strict=True):
        cells = [pair[0].name.rpartition(' ')[2]]
        for arm in pair:
            shut = arm.dose_part('closed') + arm.dose_part('open')
            looks = arm.median_dose('over_images')
            cells += [f'{arm.dose:.3f}', f'{looks:.3f}', f'{100 * shut:.0f} %']
        rows.append('| ' + ' | '.join(cells) + ' |')
    assert '\n'.join(rows) in (ROOT / 'docs/choosing.md').read_text(encoding='utf-8')
