"""The report's HTML page, in a browser."""

import base64
import re
import shutil

import pytest
from support.simulated_study import SEEDS, TRUTH, simulate_study

from mmse.ablation.report import write_report


@pytest.fixture
def simulated(tmp_path):
    return simulate_study(tmp_path)


CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chrome')


@pytest.fixture(params=[(1280, 900, 'light'), (390, 844, 'dark')], ids=['desktop', 'phone'])
def page(request, simulated):
    """The report in a headless browser that is offline."""
    if CHROMIUM is None:
        pytest.skip('no Chromium on this machine: the page is not opened')
    from playwright.sync_api import sync_playwright

    write_report(simulated)
    width, height, scheme = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        context = browser.new_context(
            viewport={'width': width, 'height': height}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        errors = []
        page.on('pageerror', lambda error: errors.append(str(error)))
        page.on('request', lambda r: errors.append(r.url) if r.url.startswith('http') else None)
        page.goto((simulated / 'report.html').as_uri())
        yield page
        assert errors == []
        browser.close()


def test_the_page_sorts_expands_and_fits(page, simulated, request):
    # The page is as wide as the screen; only tables and figures scroll within it.
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
    assert len(widths) == 6
    assert min(widths) > 500
    page.screenshot(path=str(simulated / 'page.png'), full_page=True)
    assert (simulated / 'page.png').stat().st_size > 50_000


def luminance(colour):
    """Relative luminance of a CSS colour, 0 to 1, as WCAG defines it."""
    shares = [int(value) / 255 for value in re.findall(r'\d+', colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_is_readable_and_figures_lie_on_white(page, request):
    def style(selector, name):
        script = '(e, name) => getComputedStyle(e)[name]'
        return page.locator(selector).first.evaluate(script, name)

    paper = luminance(style('body', 'backgroundColor'))
    assert paper < 0.02 if 'phone' in request.node.name else paper == 1
    for selector, ground in (('p', 'body'), ('p.quiet', 'body'), ('.verdicts li', '.verdicts li')):
        pair = luminance(style(selector, 'color')), luminance(style(ground, 'backgroundColor'))
        assert (max(pair) + 0.05) / (min(pair) + 0.05) > 4.5
    assert luminance(style('figure img', 'backgroundColor')) == 1


def test_the_page_holds_its_pictures_itself(simulated):
    write_report(simulated)
    text = (simulated / 'report.html').read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    files = {f.read_bytes() for f in (simulated / 'figures').iterdir()}
    assert {base64.b64decode(image) for image in images} == files
    assert not re.search(r'(src|href)="https?:', text)
