"""ChannelAttention against its formulas, in numbers."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule, build_plugin_layer
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from support.versions import half_on_cpu
from torch import Tensor, nn

from mmse.models import ChannelAttention
from mmse.models.settings import PRESETS
from mmse.registry import MODELS

pytestmark = pytest.mark.usefixtures('single_thread')

# The table of presets, written out by hand from the documentation.
TABLE: dict[str, dict[str, Any]] = {
    'se': {'squeeze': 'avg', 'act': 'relu', 'min_hidden': 1},
    'se_silu': {'squeeze': 'avg', 'act': 'silu', 'min_hidden': 1},
    'se_max': {'squeeze': 'max', 'act': 'relu', 'min_hidden': 1},
    'se_avgmax': {'squeeze': 'avg+max', 'fusion': 'sum', 'act': 'relu', 'min_hidden': 1},
    'se_safe': {'squeeze': 'avg', 'act': 'relu', 'min_hidden': 4},
    'se_stable': {'squeeze': 'avg', 'act': 'silu', 'min_hidden': 4},
    'se_avgmax_stable': {'squeeze': 'avg+max', 'fusion': 'sum', 'act': 'silu', 'min_hidden': 4},
    'se_gated': {'squeeze': 'avg+max', 'fusion': 'sum', 'act': 'silu', 'min_hidden': 4},
    'sepp': {'fusion': 'sum', 'act': 'silu', 'min_hidden': 4},
    'sepp_v2': {'squeeze': 'avg+max', 'fusion': 'softmax', 'act': 'silu', 'min_hidden': 4},
    'sepp_v2_residual': {
        'squeeze': 'avg+max',
        'fusion': 'softmax',
        'act': 'silu',
        'min_hidden': 4,
        'residual': True,
        'learnable_alpha': True,
    },
}
GATES = ('sigmoid', 'hardsigmoid')
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TABLE),
    *(('se_gated', {'gate': gate}) for gate in GATES),
    *(
        ('sepp', {'squeeze': squeeze, 'gate': gate})
        for squeeze in ('avg', 'max', 'avg+max')
        for gate in GATES
    ),
    *(
        ('sepp_v2', {'temperature': t, 'learnable_temperature': learn, 'residual': residual})
        for t in (0.5, 1.0, 2.0)
        for learn in (False, True)
        for residual in (False, True)
    ),
    ('sepp_v2_residual', {'alpha': 0.5}),
    ('sepp_v2_residual', {'gate': 'hardsigmoid', 'temperature': 2.0}),
]


def randomized(module: nn.Module) -> nn.Module:
    """In double precision, with every parameter far from its start."""
    module.double()
    with torch.no_grad():
        for param in module.parameters():
            param.copy_(torch.randn_like(param) * 0.7)
    return module


def outputs_and_gradients(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    params = dict(module.named_parameters())
    y = module(x)
    grads = torch.autograd.grad(y, [x, *params.values()], grad)
    return {'output': y.detach(), 'input': grads[0], **dict(zip(params, grads[1:], strict=True))}


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], atol: float = 1e-10) -> None:
    assert list(got) == list(want)
    for name, value in got.items():
        torch.testing.assert_close(
            value, want[name], rtol=0, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )


def assert_formula(module: nn.Module, x: Tensor, settings: dict[str, Any], formula: Any) -> None:
    """Output and all gradients of the module equal the formula's."""
    params = {k: p.detach().clone().requires_grad_() for k, p in module.named_parameters()}
    leaf = x.detach().clone().requires_grad_()
    y = formula(leaf, params, settings)
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, [leaf, *params.values()], grad)
    want = {'output': y.detach(), 'input': grads[0]}
    want.update(zip(params, grads[1:], strict=True))
    assert_same(outputs_and_gradients(module, x, grad), want)


def test_table_is_complete() -> None:
    assert set(PRESETS) == set(TABLE)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize(
    ('preset', 'changes'), VARIANTS, ids=lambda v: v if isinstance(v, str) else str([*v.values()])
)
def test_preset_equals_its_formula(preset, changes, full_settings, attention_formula) -> None:
    settings = full_settings(**{**TABLE[preset], **changes})
    module = randomized(ChannelAttention(40, preset=preset, **changes))
    assert module.fc1.out_features == max(settings['min_hidden'], 40 // 16)
    assert_formula(module, torch.randn(3, 40, 6, 5).double(), settings, attention_formula)


SQUEEZES = [('avg', None), ('max', None), ('avg+max', 'sum'), ('avg+max', 'softmax')]
RESIDUALS = [{}, {'residual': True, 'alpha': 0.3}, {'residual': True, 'learnable_alpha': True}]
TEMPERATURES = [{}, {'temperature': 0.4}, {'temperature': 3.0, 'learnable_temperature': True}]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act', ['silu', 'relu'])
@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize(('squeeze', 'fusion'), SQUEEZES)
def test_product_of_settings(
    squeeze, fusion, gate, act, bias, full_settings, attention_formula
) -> None:
    for residual, temperature in itertools.product(RESIDUALS, TEMPERATURES):
        given = {'squeeze': squeeze, 'gate': gate, 'act': act, 'bias': bias, 'reduction': 5}
        given |= residual | temperature | ({'fusion': fusion} if fusion else {})
        module = randomized(ChannelAttention(20, **given))
        x = torch.randn(2, 20, 5, 7).double()
        assert_formula(module, x, full_settings(**given), attention_formula)


def test_default_settings(full_settings, attention_formula) -> None:
    module = randomized(ChannelAttention(32))
    assert_formula(module, torch.randn(2, 32, 4, 4).double(), full_settings(), attention_formula)


@pytest.mark.parametrize('preset', ['se', 'se_max', 'sepp_v2_residual'])
@pytest.mark.parametrize(
    'shape',
    [(2, 37, 5, 4), (2, 7, 5, 4), (2, 1, 3, 3), (3, 24, 1, 1), (1, 24, 6, 3), (1, 24, 1, 1)],
    ids=str,
)
def test_awkward_shapes(preset, shape, full_settings, attention_formula) -> None:
    module = randomized(ChannelAttention(shape[1], preset=preset))
    settings = full_settings(**TABLE[preset])
    assert_formula(module, torch.randn(shape).double(), settings, attention_formula)


@pytest.mark.parametrize(
    ('channels', 'given', 'hidden'),
    [
        (64, {}, 4),
        (40, {'preset': 'se'}, 2),
        (40, {'preset': 'se_safe'}, 4),
        (8, {'preset': 'se'}, 1),
        (8, {}, 4),
        (2048, {}, 128),
        (100, {'reduction': 7, 'min_hidden': 1}, 14),
        (100, {'reduction': 1}, 100),
        (16, {'reduction': 16, 'min_hidden': 9}, 9),
    ],
)
def test_hidden_width(channels: int, given: dict[str, Any], hidden: int) -> None:
    module = ChannelAttention(channels, **given)
    assert module.hidden_channels == hidden
    assert tuple(module.fc1.weight.shape) == (hidden, channels)
    assert tuple(module.fc2.weight.shape) == (channels, hidden)


@pytest.mark.parametrize('preset', sorted(TABLE))
def test_empty_batch(preset: str) -> None:
    module = ChannelAttention(24, preset=preset)
    x = torch.randn(0, 24, 5, 5, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 24, 5, 5)
    for name, param in module.named_parameters():
        assert torch.equal(param.grad, torch.zeros_like(param)), name


@pytest.mark.parametrize('preset', ['se', 'se_max', 'se_avgmax', 'sepp_v2', 'sepp_v2_residual'])
def test_memory_layouts(preset: str) -> None:
    module = randomized(ChannelAttention(24, preset=preset))
    big = torch.randn(3, 48, 10, 14).double()
    sliced = big[:, ::2, 1::2, ::2]
    grad = torch.randn(sliced.shape).double()
    want = outputs_and_gradients(module, sliced.contiguous(), grad)
    assert not sliced.is_contiguous()
    assert_same(outputs_and_gradients(module, sliced, grad), want)
    last = sliced.contiguous(memory_format=torch.channels_last)
    assert_same(outputs_and_gradients(module, last, grad), want)
    last_grad = grad.contiguous(memory_format=torch.channels_last)
    assert_same(outputs_and_gradients(module, last, last_grad), want)
    turned = sliced.transpose(2, 3).contiguous().transpose(2, 3)
    assert_same(outputs_and_gradients(module, turned, grad), want)


@pytest.mark.parametrize('preset', sorted(TABLE))
@pytest.mark.parametrize(
    ('dtype', 'atol'), [pytest.param(torch.half, 4e-3, marks=half_on_cpu), (torch.bfloat16, 3e-2)]
)
def test_low_precision_is_near_float32(preset: str, dtype: torch.dtype, atol: float) -> None:
    module = ChannelAttention(64, preset=preset).to(dtype)
    x = torch.randn(2, 64, 12, 12).to(dtype)
    grad = torch.rand(2, 64, 12, 12).to(dtype)
    got = outputs_and_gradients(module, x, grad)
    want = outputs_and_gradients(copy.deepcopy(module).float(), x.float(), grad.float())
    assert {v.dtype for v in got.values()} == {dtype}
    torch.testing.assert_close(got['output'].float(), want['output'], rtol=atol, atol=atol)
    torch.testing.assert_close(got['input'].float(), want['input'], rtol=5 * atol, atol=5 * atol)
    assert all(v.isfinite().all() for v in got.values())


@pytest.mark.parametrize('preset', sorted(TABLE))
def test_autocast_is_near_float32(preset: str) -> None:
    module = ChannelAttention(64, preset=preset)
    x = torch.randn(2, 64, 12, 12, requires_grad=True)
    want = module(x.detach())
    for value in (x, x.bfloat16()):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = module(value)
        y.sum().backward()
        torch.testing.assert_close(y.float(), want, rtol=3e-2, atol=3e-2)
    for name, param in module.named_parameters():
        assert param.dtype is torch.float32, name
        assert param.grad.isfinite().all(), name


@pytest.mark.parametrize('preset', sorted(TABLE))
@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('temperature', [1.0, 0.3])
def test_zero_fc2_gives_the_known_factor(preset: str, gate: str, temperature: float) -> None:
    module = ChannelAttention(24, preset=preset, gate=gate, temperature=temperature).double()
    nn.init.zeros_(module.fc2.weight)
    nn.init.zeros_(module.fc2.bias)
    x = torch.randn(2, 24, 5, 5).double()
    factor = 1.5 if preset == 'sepp_v2_residual' else 0.5
    assert torch.equal(module(x), x * factor)


@pytest.mark.parametrize('alpha', [0.3, -2.0, 0.0])
def test_zero_fc2_with_alpha(alpha: float) -> None:
    module = ChannelAttention(24, residual=True, alpha=alpha, bias=False).double()
    nn.init.zeros_(module.fc2.weight)
    x = torch.randn(2, 24, 5, 5).double()
    torch.testing.assert_close(module(x), x * (1 + 0.5 * alpha), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(('logits', 'squeeze'), [((900.0, 0.0), 'avg'), ((-900.0, 0.0), 'max')])
def test_fusion_logits_far_apart(logits: tuple[float, float], squeeze: str) -> None:
    both = randomized(ChannelAttention(24))
    one = ChannelAttention(24, squeeze=squeeze).double()
    one.load_state_dict({k: p for k, p in both.named_parameters() if k != 'fusion_logits'})
    both.fusion_logits.data.copy_(torch.tensor(logits))
    x = torch.randn(2, 24, 6, 5).double()
    torch.testing.assert_close(both(x), one(x), rtol=0, atol=1e-12)


def test_fusion_starts_at_the_mean_of_both_squeezes() -> None:
    module = ChannelAttention(24)
    assert torch.equal(module.fusion_logits, torch.zeros(2))


@pytest.mark.parametrize(
    'given',
    [
        {'preset': 'se'},
        {'preset': 'se_avgmax'},
        {'preset': 'se_gated', 'gate': 'hardsigmoid'},
        {'squeeze': 'max', 'residual': True},
        {'preset': 'sepp_v2_residual', 'learnable_temperature': True},
    ],
)
def test_gradcheck(given: dict[str, Any]) -> None:
    module = randomized(ChannelAttention(6, **given))
    names = [name for name, _ in module.named_parameters()]

    def call(x: Tensor, *params: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, params, strict=True)), (x,))

    leaves = [p.detach().clone().requires_grad_() for p in module.parameters()]
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *leaves))


FC = {'fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias'}


@pytest.mark.parametrize(
    ('given', 'keys'),
    [
        ({}, FC | {'fusion_logits'}),
        ({'bias': False}, {'fc1.weight', 'fc2.weight', 'fusion_logits'}),
        ({'squeeze': 'avg'}, FC),
        ({'squeeze': 'max', 'bias': False}, {'fc1.weight', 'fc2.weight'}),
        ({'fusion': 'sum'}, FC),
        ({'fusion': 'sum', 'temperature': 2.0, 'residual': True, 'alpha': 0.5}, FC),
        ({'squeeze': 'avg', 'learnable_temperature': True}, FC | {'raw_temperature'}),
        ({'squeeze': 'avg', 'residual': True, 'learnable_alpha': True}, FC | {'alpha'}),
        (
            {'preset': 'sepp_v2_residual', 'learnable_temperature': True},
            FC | {'fusion_logits', 'alpha', 'raw_temperature'},
        ),
        *(
            (
                {'preset': name},
                FC
                | ({'fusion_logits'} if name.startswith('sepp_v2') else set())
                | ({'alpha'} if name == 'sepp_v2_residual' else set()),
            )
            for name in sorted(TABLE)
        ),
    ],
)
def test_parameters_exist_only_where_used(given: dict[str, Any], keys: set[str]) -> None:
    module = ChannelAttention(24, **given)
    assert {name for name, _ in module.named_parameters()} == keys
    assert set(module.state_dict()) == keys | {'_extra_state'}  # the settings
    module(torch.randn(2, 24, 4, 4)).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize('temperature', [1e-4, 0.01, 0.5, 1, 2.0, 20.5, 50, 89, 100, 500])
def test_learned_temperature_starts_exactly(temperature: float) -> None:
    module = ChannelAttention(24, temperature=temperature, learnable_temperature=True)
    assert module.raw_temperature.dtype is torch.float32
    assert module.raw_temperature.numel() == 1
    used = float(nn.functional.softplus(module.raw_temperature.detach().double()))
    assert math.isclose(used, temperature, rel_tol=2e-6)
    assert math.isclose(
        float(torch.as_tensor(module.temperature).detach()), temperature, rel_tol=2e-6
    )
    fixed = ChannelAttention(24, temperature=temperature)
    fixed.load_state_dict(module.state_dict(), strict=False)
    x = torch.randn(2, 24, 4, 4)
    torch.testing.assert_close(module(x), fixed(x), rtol=1e-4, atol=1e-5)


def test_constants_and_starts() -> None:
    assert float(ChannelAttention(8, temperature=0.25).temperature) == 0.25
    learned = ChannelAttention(8, residual=True, alpha=0.25, learnable_alpha=True)
    assert learned.alpha.tolist() == [0.25]


def test_built_through_the_registries_and_mmcv() -> None:
    cfg = {'type': 'ChannelAttention', 'in_channels': 16, 'preset': 'se_gated'}
    with DefaultScope.overwrite_default_scope('mmse'):  # whatever a test before has left
        by_registry = MODELS.build(dict(cfg))
    by_root = ROOT_MODELS.build({**cfg, 'type': 'mmse.ChannelAttention'})
    plugin = {'type': 'mmse.ChannelAttention', 'preset': 'se_gated'}
    name, by_mmcv = build_plugin_layer(plugin, postfix='_2', in_channels=16)
    assert name.endswith('_2')
    direct = randomized(ChannelAttention(16, preset='se_gated'))
    x = torch.randn(2, 16, 4, 4).double()
    for module in (by_registry, by_root, by_mmcv):
        assert type(module) is ChannelAttention
        module.double().load_state_dict(direct.state_dict())
        assert torch.equal(module(x), direct(x))


def test_after_a_conv_module(full_settings, attention_formula) -> None:
    conv = ConvModule(3, 16, 3, padding=1, norm_cfg={'type': 'BN'}).double()
    attention = randomized(ChannelAttention(16, preset='se_avgmax'))
    x = torch.randn(2, 3, 8, 8).double()
    grad = torch.randn(2, 16, 8, 8).double()
    got = outputs_and_gradients(nn.Sequential(conv, attention), x, grad)

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.attention = conv, attention

        def forward(self, x: Tensor) -> Tensor:
            params = dict(self.attention.named_parameters())
            settings = full_settings(**TABLE['se_avgmax'])
            return attention_formula(self.conv(x), params, settings)

    want = outputs_and_gradients(Written(), x, grad)
    assert_same(dict(zip(want, got.values(), strict=True)), want)


@pytest.mark.parametrize('mode', [True, False])
def test_input_is_left_alone(mode: bool) -> None:
    module = randomized(ChannelAttention(16, preset='sepp_v2_residual')).train(mode)
    x = torch.randn(2, 16, 4, 4).double()
    before = x.clone()
    with torch.no_grad():
        module(x)
    module(x)
    assert torch.equal(x, before)
