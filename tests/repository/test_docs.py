"""Every command and every block of code in README, CONTRIBUTING and docs/ is run."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from mmengine import digit_version
from support.docs_pages import Item, items_of
from support.docs_rules import ROOT, rule_of
from support.docs_run import run_page
from support.docs_sandbox import make_sandbox
from support.processes import start

pytest_plugins = ('support.public_data',)

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
every_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)


def expanded(items: Iterator[Item]) -> Iterator[Item]:
    """Each item once; instead of ``make``, the commands of the target."""
    seen = set()
    for item in items:
        if item.text in seen:
            continue
        seen.add(item.text)
        if not item.text.startswith('make '):
            yield item
            continue
        command = ['make', '-n', '--no-print-directory', *item.text.split()[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f'{item.where}: {item.text}: {done.stderr}'
        yield from (item._replace(text=line) for line in done.stdout.splitlines())


@every_page
def test_every_command_has_a_rule(page: Path) -> None:
    for item in expanded(items_of(page.name, page.read_text(encoding='utf-8'))):
        if not item.python:
            rule_of(item)


@pytest.mark.slow
@every_page
@pytest.mark.usefixtures('bccd', 'camvid')
def test_commands_and_blocks_of(page: Path, tmp_path: Path) -> None:
    if page.stem == 'production' and digit_version(torch.__version__) < digit_version('2.6'):
        pytest.skip('the page exports to ONNX, which needs torch 2.6')
    text = page.read_text(encoding='utf-8')
    items = list(expanded(items_of(page.name, text)))
    if not items:
        return
    folder = tmp_path / 'user'
    folder.mkdir()
    make_sandbox(folder, text)
    # Only two of the made-up images have a box.
    (tmp_path / 'clone/BCCD/ImageSets/Main/val.txt').write_text('a\nb\n')
    (folder / 'clone').symlink_to(tmp_path / 'clone')
    done = start(run_page, folder, items, timeout=1800)()
    failures = folder / 'failures.txt'
    assert not failures.exists(), failures.read_text()
    assert done == 0


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('```bash\nmake test\nfrobnicate --all  # now\n```', 'P.md:3: .*`frobnicate --all`'),
        ('Then `python tools/none/such.py now`', 'P.md:1: .*`python tools/none/such.py now`'),
        ('```text\nit prints\ngit frobnicate\n```', 'P.md:3: .*`git frobnicate`'),
        ('\n```ruby\nputs 1\n```', "P.md:2: .*'ruby'"),
        ('\n\n```\nanything\n```', "P.md:3: .*''"),
    ],
)
def test_what_cannot_be_run_is_named(text: str, said: str) -> None:
    with pytest.raises((LookupError, ValueError), match=said):
        for item in items_of('P.md', text):
            rule_of(item._replace(text='python tools/train.py') if 'make' in item.text else item)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r'^#+ (.*)', page.read_text(encoding='utf-8'), re.M)
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}


@every_page
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    missing = []
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if not re.match(r'https?:|mailto:', link):
            file, _, anchor = link.partition('#')
            target = page.parent / file if file else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(link)
    for path in re.findall(r'`((?:configs|docs|mmse|requirements|tests|tools)/[^`\s]*)', text):
        if not list(ROOT.glob(path)):
            missing.append(path)
    assert not missing
    for name in re.findall(r'^::: (\S+)', text, re.M):
        resolve_name(name)
