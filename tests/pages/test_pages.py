"""Figures and pages: one look, whole files."""

from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmse.pages.html import write_page
from mmse.pages.style import DPI, INK, styled, write_figure


def bars() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().bar([0, 1], [1, 2], color=INK)
    return figure


def test_a_figure_is_a_png_on_white_and_always_the_same(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    files = [tmp_path / 'a.png', tmp_path / 'b.png']
    for file in files:
        with styled():
            write_figure(bars(), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    assert sorted(tmp_path.iterdir()) == files
    pixels = np.asarray(Image.open(files[0]).convert('RGB'))
    assert pixels.shape == (2 * DPI, 3 * DPI, 3)
    assert (pixels[[0, -1], [0, -1]] == 255).all()
    ink = [int(INK[i : i + 2], 16) for i in (1, 3, 5)]
    assert (pixels == ink).all(axis=2).mean() > 0.2


def test_a_page_of_html_escapes_its_values(tmp_path: Path) -> None:
    page = tmp_path / 'gates.html'
    values = {'name': '<b>', 'checkpoint': 'x.pth', 'images': 1, 'attention': '', 'figures': []}
    write_page(page, 'mmse.gates', values)
    text = page.read_text()
    assert '<h1>Gates of &lt;b&gt;</h1>' in text
    assert 'x.pth; 1 image.' in text
    assert text.startswith('<!doctype html>') and text.endswith('</html>\n')
    # A template that lacks a value leaves the page as it was.
    del values['images']
    with pytest.raises(jinja2.UndefinedError, match='images'):
        write_page(page, 'mmse.gates', values)
    assert page.read_text() == text
    assert list(tmp_path.iterdir()) == [page]
