"""The tables of docs/config.md say what the settings of an attention allow."""

import re
from pathlib import Path

from mmse.models.settings import ALIASES, KEYS, PRESETS, AttentionSettings, rule_of

PAGE = (Path(__file__).parents[2] / 'docs/config.md').read_text(encoding='utf-8')


def table(heading: str) -> list[list[str]]:
    """The cells of the table below this row of headings."""
    rows = PAGE.split(f'| {heading} |\n')[1].split('\n\n')[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


def test_keys() -> None:
    for (name, allowed, default, _), key in zip(
        table('key | allowed | default | needs'), KEYS.values(), strict=True
    ):
        assert name == f'`{key.name}`'
        assert allowed.replace('`', '') == rule_of(key).allowed
        assert default == f'`{key.default!r}`'


def test_what_a_key_needs_gives_it_an_effect() -> None:
    """A key has an effect beside what it needs; those that need nothing always have one."""
    without = AttentionSettings(squeeze='avg', fusion=None, alpha=None).to_dict()
    for name, _, _, needs in table('key | allowed | default | needs'):
        key = name.strip('`')
        assert (key in without) == (not needs)
        if needs:
            other, value = re.fullmatch(r"`(\w+)='?([\w+]+)'?`", needs).groups()
            given = True if value == 'True' else value
            assert key in AttentionSettings(**{'squeeze': 'avg', **{other: given}}).to_dict()


def test_presets() -> None:
    shown = {}
    for name, squeeze, fusion, act, min_hidden, gate, gating in table(
        'preset | squeeze | fusion | act | min_hidden | gate | gating'
    ):
        shown[name.strip('`')] = AttentionSettings(
            squeeze=squeeze,
            fusion=fusion or None,
            act=act,
            min_hidden=int(min_hidden),
            gate=gate,
            residual='residual' in gating,
            alpha=1.0 if 'residual' in gating else None,
            learnable_alpha='alpha learned' in gating,
        )
    resolved = {name: AttentionSettings(**settings) for name, settings in PRESETS.items()}
    assert shown == {name: form for name, form in resolved.items() if name not in ALIASES}
    assert all(resolved[alias] == resolved[preset] for alias, preset in ALIASES.items())
    assert all(f'`{alias}`' in PAGE for alias in ALIASES)
