"""Marks of tests that need more than the oldest versions that are supported."""

import cv2
import pytest
import torch
from mmengine import digit_version


def needs_torch(version: str, why: str) -> pytest.MarkDecorator:
    """Skip a test where torch is older."""
    old = digit_version(torch.__version__) < digit_version(version)
    return pytest.mark.skipif(old, reason=f'torch < {version} {why}')


compiles = needs_torch('2.6', 'does not compile the blocks, as mmse.utils.dependencies says')
exports = needs_torch('2.6', 'has no torch.export with dynamic sizes')
draws_as_pinned = pytest.mark.skipif(
    digit_version(cv2.__version__) < digit_version('5'),
    reason='OpenCV < 5 draws some shapes of the built-in data with other pixels',
)
half_on_cpu = needs_torch('2.4', 'computes no float16 on CPUs')
