"""The documentation builds as a site, without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    command = [sys.executable, 'tools/build_docs.py', '--out', str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'WARNING' not in run.stderr
    api = (tmp_path / 'docs/api/index.html').read_text()
    assert 'id="mmse.models.SEResNet"' in api
    assert 'id="mmse.models.functional.squeeze"' in api
    pages = [page.read_text() for page in tmp_path.rglob('index.html')]
    # A role of another documentation tool would be shown as it stands.
    assert not any(re.search(r':(class|func|meth|mod):', page) for page in pages)
    assert not any(
        'http' in src for page in pages for src in re.findall(r'<script src="(.*?)"', page)
    )
