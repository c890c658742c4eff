"""The config language: presets, resolved forms, stages and blocks, and its errors."""

import json
import math
import warnings
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from mmengine.config import Config, ConfigDict

from mmse.models import ChannelAttention, SEResNet
from mmse.models.resolve import resolve_attention, resolve_stages
from mmse.models.settings import ALIASES, PRESETS, AttentionSettings
from mmse.utils.errors import UserError

SE = {
    'squeeze': 'avg',
    'reduction': 16,
    'min_hidden': 1,
    'act': 'relu',
    'gate': 'sigmoid',
    'temperature': 1.0,
    'learnable_temperature': False,
    'residual': False,
    'bias': True,
}
DEFAULT = {**SE, 'squeeze': 'avg+max', 'fusion': 'softmax', 'min_hidden': 4, 'act': 'silu'}
KEYS = [*DEFAULT, 'alpha', 'learnable_alpha']
R50 = (3, 4, 6, 3)


def plain(settings: Any) -> Any:
    """Settings, or nested lists of them, as dicts."""
    if isinstance(settings, list):
        return [plain(entry) for entry in settings]
    return settings.to_dict() if isinstance(settings, AttentionSettings) else settings


def canonical(resolved: Any) -> str:
    return json.dumps(plain(resolved), sort_keys=True)


@pytest.mark.parametrize(
    ('cfg', 'want'),
    [
        (None, None),
        ('se', SE),
        ({'preset': 'se'}, SE),
        ({'squeeze': 'avg', 'act': 'relu', 'min_hidden': 1}, SE),
        ({}, DEFAULT),
        ('sepp_v2', DEFAULT),
        ({'preset': 'se', 'gate': 'hardsigmoid'}, {**SE, 'gate': 'hardsigmoid'}),
        ('se_avgmax', {**SE, 'squeeze': 'avg+max', 'fusion': 'sum'}),
        ({'residual': True}, {**DEFAULT, 'residual': True, 'alpha': 1.0, 'learnable_alpha': False}),
        (
            {'preset': 'sepp_v2_residual', 'alpha': 0.5},
            {**DEFAULT, 'residual': True, 'alpha': 0.5, 'learnable_alpha': True},
        ),
        (
            {'squeeze': 'max', 'temperature': 2, 'learnable_temperature': True, 'bias': False},
            {
                **{k: v for k, v in DEFAULT.items() if k != 'fusion'},
                'squeeze': 'max',
                'temperature': 2.0,
                'learnable_temperature': True,
                'bias': False,
            },
        ),
    ],
)
def test_resolved_form(cfg: Any, want: dict[str, Any] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        resolved = resolve_attention(cfg)
        assert canonical(resolved) == canonical(want)
        assert canonical(resolve_attention(resolved)) == canonical(want)


def test_equal_forms_are_equal_text() -> None:
    spelled = {'temperature': 1, 'residual': True, 'alpha': 1}
    short = {'temperature': 1.0, 'residual': True}
    assert resolve_attention(spelled) == resolve_attention(short)
    assert canonical(resolve_attention(spelled)) == canonical(resolve_attention(short))


def test_aliases_are_the_presets_of_equal_form() -> None:
    forms = {name: resolve_attention(name) for name in PRESETS}
    first = {form: name for name, form in reversed(forms.items())}
    assert {name: first[form] for name, form in forms.items() if first[form] != name} == ALIASES


def test_config_dict_and_no_change_to_the_input() -> None:
    cfg = ConfigDict(preset='se', gate='hardsigmoid')
    assert canonical(resolve_attention(cfg)) == canonical({**SE, 'gate': 'hardsigmoid'})
    assert cfg == {'preset': 'se', 'gate': 'hardsigmoid'}
    presets = json.dumps(PRESETS, sort_keys=True)
    resolve_attention('se').to_dict()['gate'] = 'spoiled'
    assert json.dumps(PRESETS, sort_keys=True) == presets
    assert plain(resolve_attention('se')) == SE


def test_settings_cannot_be_changed_or_be_wrong() -> None:
    settings = resolve_attention('se')
    with pytest.raises(FrozenInstanceError):
        settings.gate = 'hardsigmoid'
    assert replace(settings, gate='hardsigmoid').to_dict() == {**SE, 'gate': 'hardsigmoid'}
    with pytest.raises(UserError, match=r"gate: 'x' is not a gate; allowed: 'sigmoid'"):
        replace(settings, gate='x')
    # A key that comes into effect needs a value.
    with pytest.raises(UserError, match="fusion: None is not a fusion; allowed: 'softmax', 'sum'"):
        replace(settings, squeeze='avg+max')


def test_module_tells_its_resolved_settings() -> None:
    assert plain(ChannelAttention(32, preset='se').settings) == SE
    assert plain(ChannelAttention(32).settings) == DEFAULT
    given = {'squeeze': 'max', 'residual': True, 'alpha': 0.5}
    assert ChannelAttention(32, **given).settings == resolve_attention(given)


@pytest.mark.parametrize(
    ('cfg', 'without', 'key'),
    [
        ({'squeeze': 'avg', 'fusion': 'sum'}, {'squeeze': 'avg'}, 'fusion'),
        ({'squeeze': 'max', 'fusion': 'softmax'}, {'squeeze': 'max'}, 'fusion'),
        ({'preset': 'se', 'fusion': 'softmax'}, 'se', 'fusion'),
        ({'alpha': 0.5}, {}, 'alpha'),
        ({'learnable_alpha': True}, {}, 'learnable_alpha'),
        ({'alpha': 0.5, 'learnable_alpha': True, 'residual': False}, {}, 'alpha'),
        ({'preset': 'se', 'fusion': 'sum', 'alpha': 2.0}, 'se', 'fusion'),
    ],
)
def test_key_without_effect_is_dropped_with_one_warning(cfg: Any, without: Any, key: str) -> None:
    with pytest.warns(UserWarning, match=key) as caught:
        resolved = resolve_attention(cfg, where='attention[1]')
    assert len(caught) == 1
    assert 'attention[1]' in str(caught[0].message)
    assert canonical(resolved) == canonical(resolve_attention(without))
    with pytest.warns(UserWarning, match=key) as caught:
        module = ChannelAttention(16, **cfg)
    assert len(caught) == 1
    assert canonical(module.settings) == canonical(resolved)


@pytest.mark.parametrize(
    ('cfg', 'without'),
    [
        ({'preset': 'sepp', 'squeeze': 'avg'}, {'squeeze': 'avg'}),
        ({'preset': 'sepp_v2', 'squeeze': 'max'}, {'squeeze': 'max'}),
        ({'preset': 'sepp_v2_residual', 'residual': False}, {}),
    ],
)
def test_override_that_makes_a_preset_key_void(cfg: Any, without: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        resolved = resolve_attention(cfg)
    assert len(caught) <= 1
    assert canonical(resolved) == canonical(resolve_attention(without))


def test_one_override_on_the_command_line_is_enough() -> None:
    cfg = Config({'model': {'backbone': {'attention': {'squeeze': 'avg+max', 'fusion': 'sum'}}}})
    cfg.merge_from_dict({'model.backbone.attention.squeeze': 'avg'})
    with pytest.warns(UserWarning, match='fusion') as caught:
        net = SEResNet(18, base_channels=8, **cfg.model.backbone)
    assert len(caught) == 1
    assert net.layer4[1].attention.settings == resolve_attention({'squeeze': 'avg'})


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_every_preset_is_silent_and_stable(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        resolved = resolve_attention(name)
        assert canonical(resolve_attention(resolved)) == canonical(resolved)
        assert ChannelAttention(16, preset=name).settings == resolved


VALUE_ERRORS = [
    ({'squeeze': 'mean'}, 'squeeze', 'mean', ["'avg'", "'max'", "'avg+max'"]),
    ({'squeeze': None}, 'squeeze', 'None', ["'avg'", "'max'", "'avg+max'"]),
    ({'squeeze': ['avg']}, 'squeeze', "['avg']", ["'avg'", "'max'", "'avg+max'"]),
    ({'fusion': 'mean'}, 'fusion', 'mean', ["'softmax'", "'sum'"]),
    ({'act': 'gelu'}, 'act', 'gelu', ["'silu'", "'relu'"]),
    ({'gate': 'sigmod'}, 'gate', 'sigmod', ["'sigmoid'", "'hardsigmoid'"]),
    ({'gate': {}}, 'gate', '{}', ["'sigmoid'", "'hardsigmoid'"]),
    *(
        ({key: value}, key, repr(value), ['1'])
        for key in ('reduction', 'min_hidden')
        for value in (0, -3, 2.5, '16', True, None)
    ),
    *(
        ({'temperature': value}, 'temperature', repr(value), ['0'])
        for value in (0, 0.0, -1.0, math.nan, math.inf, '2', None, True)
    ),
    *(
        ({'residual': True, 'alpha': value}, 'alpha', repr(value), [])
        for value in (math.nan, math.inf, -math.inf, '1', None, True)
    ),
    *(
        ({'residual': True, key: value}, key, repr(value), ['True', 'False'])
        for key in ('learnable_temperature', 'learnable_alpha', 'bias')
        for value in (1, 0, 'True', None)
    ),
    *(({'residual': value}, 'residual', repr(value), ['True', 'False']) for value in (1, 'yes')),
    ({'preset': 'sepq'}, 'preset', 'sepq', sorted(PRESETS)),
    ({'preset': ['se']}, 'preset', "['se']", sorted(PRESETS)),
]


@pytest.mark.parametrize(('cfg', 'key', 'given', 'allowed'), VALUE_ERRORS, ids=repr)
def test_wrong_value_names_place_value_and_allowed(cfg, key, given, allowed) -> None:
    with pytest.raises(UserError) as caught:
        resolve_attention(cfg, where='attention[2][5]')
    text = str(caught.value)
    assert f'attention[2][5].{key}' in text
    assert given in text
    for name in allowed:
        assert name in text.replace(f'attention[2][5].{key}', ''), name


@pytest.mark.parametrize(('cfg', 'key', 'given', 'allowed'), VALUE_ERRORS, ids=repr)
def test_module_refuses_the_same_values(cfg, key, given, allowed) -> None:
    with pytest.raises(ValueError, match=key) as caught:
        ChannelAttention(32, **cfg)
    assert given in str(caught.value)
    assert all(name in str(caught.value) for name in allowed)


def test_unknown_key_and_preset_and_type() -> None:
    with pytest.raises(UserError) as caught:
        resolve_attention({'squeese': 'avg'})
    assert 'attention' in str(caught.value)
    assert 'squeese' in str(caught.value)
    assert all(key in str(caught.value) for key in KEYS)
    with pytest.raises(UserError) as caught:
        resolve_attention('se_avg')
    assert 'attention' in str(caught.value)
    assert 'se_avg' in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)
    for wrong in (5, True, 1.5, ('se',), ['se']):
        with pytest.raises(UserError, match='attention') as caught:
            resolve_attention(wrong)
        assert repr(wrong) in str(caught.value)


def test_module_takes_settings_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        ChannelAttention(32, 'se')
    with pytest.raises((TypeError, ValueError), match='squeese'):
        ChannelAttention(32, squeese='avg')


def test_stages_get_what_they_are_given() -> None:
    assert plain(resolve_stages(None, R50)) == [[None] * n for n in R50]
    assert plain(resolve_stages('se', R50)) == [[SE] * n for n in R50]
    assert plain(resolve_stages({'preset': 'se'}, (2, 2))) == [[SE, SE]] * 2
    hard = {'preset': 'se', 'gate': 'hardsigmoid'}
    by_stage = plain(resolve_stages([None, 'se', hard, {}], R50))
    assert by_stage == [
        [None] * 3,
        [SE] * 4,
        [{**SE, 'gate': 'hardsigmoid'}] * 6,
        [DEFAULT] * 3,
    ]
    by_block = plain(resolve_stages([None, None, 'se', ['se', None, hard]], R50))
    assert by_block[:3] == [[None] * 3, [None] * 4, [SE] * 6]
    assert by_block[3] == [SE, None, {**SE, 'gate': 'hardsigmoid'}]


def test_stages_from_a_config_file_object() -> None:
    cfg = Config({'attention': [None, {'preset': 'se'}, [None, {'preset': 'se', 'bias': False}]]})
    got = plain(resolve_stages(cfg.attention, (1, 2, 2)))
    assert got == [[None], [SE, SE], [None, {**SE, 'bias': False}]]


@pytest.mark.parametrize(
    ('attention', 'parts'),
    [
        (['se', 'se', 'se'], ['attention', '3', '4']),
        (['se'] * 5, ['attention', '5', '4']),
        ([], ['attention', '0', '4']),
        ([None, None, ['se'] * 5, None], ['attention[2]', '5', '6']),
        ([None, [], None, None], ['attention[1]', '0', '4']),
        ([None, None, ['se'] * 5 + [{'gate': 'x'}], None], ['attention[2][5].gate', "'x'"]),
        ([None, {'reduction': 0}, None, None], ['attention[1].reduction', '0']),
        ({'gate': 'x'}, ['attention.gate', "'x'", "'sigmoid'", "'hardsigmoid'"]),
        ([None, None, None, ['se', 'sx', 'se']], ['attention[3][1]', 'sx', 'sepp_v2_residual']),
        (['sx', None, None, None], ['attention[0]', 'sx', 'sepp_v2_residual']),
        ('sx', ['attention', 'sx', 'sepp_v2_residual']),
        ([None, None, None, ['se', ['se'], 'se']], ['attention[3][1]', "['se']"]),
        ([None, 7, None, None], ['attention[1]', '7']),
        (7, ['attention', '7']),
        (True, ['attention', 'True']),
        ([{'preset': 'se', 'gates': 'x'}, None, None, None], ['attention[0]', 'gates', 'gate']),
    ],
    ids=repr,
)
def test_errors_name_the_place(attention: Any, parts: list[str]) -> None:
    for build in (
        lambda: resolve_stages(attention, R50),
        lambda: SEResNet(50, attention=attention),
    ):
        with pytest.raises(UserError) as caught:
            build()
        assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_where_is_what_the_caller_says() -> None:
    with pytest.raises(UserError, match=r'model\.backbone\.attention\[1\]\.gate'):
        resolve_stages(['se', {'gate': 'x'}], (1, 1), where='model.backbone.attention')


def test_num_stages_decides_the_length() -> None:
    small = {'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1), 'out_indices': (0, 1)}
    net = SEResNet(18, base_channels=8, attention=['se', None], **small)
    assert plain(net.layer1[0].attention.settings) == SE
    assert net.layer2[0].attention is None
    with pytest.raises(UserError, match=r'4.*2|2.*4'):
        SEResNet(18, base_channels=8, attention=['se'] * 4, **small)
