"""Configs of mmpretrain and mmpose with our backbones: they build, equal the originals, and train.

Both are in a folder of their own, out of everybody's way, so a process of its own tries each.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmse.benchmark.peers import FOLDER

ROOT = Path(__file__).parents[2]
BODY = 'body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ('package', 'step'), [('mmpretrain', 'resnet/resnet18_8xb32_in1k.py'), ('mmpose', BODY)]
)
def test_a_codebase(package: str, step: str) -> None:
    """Eight of its configs; tools/experiments/codebases.py tries all of them."""
    tool = ROOT / 'tools/experiments/one_codebase.py'
    done = subprocess.run(
        [sys.executable, tool, package, FOLDER, '8', step], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found['swapped'] == 8
    assert not found['not_built'] and not found['refused']
    assert found['verdicts'] and not any(found['verdicts'].values())
    taken = found['steps'][step]
    assert 0 < taken['loss'] < 100
    assert taken['trained'] == taken['with_gradient'] > 0
