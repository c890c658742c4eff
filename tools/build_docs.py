"""Build the documentation as a site: ``make docs``.

The pages lie where they read well in the repository, so they are first copied side by side into
one folder. Links to files of the repository keep working; a link to a folder leads to its README or
to a list of its files.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs', 'results')


def stage(folder: Path) -> None:
    """Copy the pages, and what they link to, into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in PAGES:
        files = sorted((ROOT / name).rglob('*')) if (ROOT / name).is_dir() else [ROOT / name]
        for file in files:
            if file.suffix in ('.md', '.png', '.svg', '.html', '.css'):
                _copy(file, folder)
    for page in folder.rglob('*.md'):
        source = ROOT / page.relative_to(folder)
        for link in re.findall(r'\]\(([^)#:]+)\)', page.read_text(encoding='utf-8')):
            target = source.parent / link
            if target.is_file():
                _copy(target, folder)
            elif target.is_dir():
                _list(target, folder, page, link)


def _copy(file: Path, folder: Path) -> None:
    copy = folder / file.resolve().relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists():
        shutil.copy(file, copy)


def _list(target: Path, folder: Path, page: Path, link: str) -> None:
    """Let a link to a folder lead to its README, or to a page that lists its tables and figures."""
    index = folder / target.resolve().relative_to(ROOT) / 'README.md'
    if not index.exists():
        lines = [f'- [{file.name}]({file.name})' for file in sorted(target.iterdir())]
        index.write_text('\n'.join([f'# {target.name}', '', *lines, '']), encoding='utf-8')
    text = page.read_text(encoding='utf-8')
    there = f'{link.rstrip("/")}/README.md'
    page.write_text(text.replace(f']({link})', f']({there})'), encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description='Build the documentation as a site')
    parser.add_argument('--out', type=Path, default=ROOT / 'site')
    args = parser.parse_args()
    stage(ROOT / 'build' / 'docs_source')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--site-dir', str(args.out.resolve())]
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment).returncode)


if __name__ == '__main__':
    main()
