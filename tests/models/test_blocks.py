"""The residual blocks against a composition of functions written here."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmse.models import SEBasicBlock, SEBottleneck
from mmse.models.resolve import resolve_attention

pytestmark = pytest.mark.usefixtures('single_thread')

ATTENTIONS: dict[str, Any] = {
    'none': None,
    'se': {'preset': 'se'},
    'max': {'preset': 'se_max'},
    'avgmax': {'preset': 'se_avgmax'},
    'hard': {'preset': 'se_gated', 'gate': 'hardsigmoid', 'bias': False},
    'v2': {'preset': 'sepp_v2', 'temperature': 2.0, 'learnable_temperature': True},
    'residual': {'preset': 'sepp_v2_residual', 'alpha': 0.7},
    'constant': {'squeeze': 'avg', 'residual': True, 'alpha': -0.5, 'temperature': 0.5},
}
NORM = {'type': 'BN', 'eps': 1e-3, 'momentum': 0.03}


def make(kind: type[nn.Module], attention: Any, stride: int = 1, **kwargs: Any) -> nn.Module:
    """A block on 16 channels in double precision; every parameter and statistic is random."""
    planes = 8 if kind is SEBottleneck else 24
    out = planes * kind.expansion
    downsample = None
    if stride > 1 or out != 16:
        conv = nn.Conv2d(16, out, 1, stride=stride, bias=False)
        downsample = nn.Sequential(conv, nn.BatchNorm2d(out, eps=1e-3, momentum=0.03))
    kwargs.setdefault('norm_cfg', dict(NORM))
    block = kind(16, planes, stride, downsample=downsample, attention=attention, **kwargs).double()
    with torch.no_grad():
        for param in block.parameters():
            param.copy_(torch.randn_like(param) * 0.5)
        for name, buffer in block.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_()
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 2)
    return block


def composed(block: nn.Module, state: dict[str, Tensor], x: Tensor, formula: Any, full: Any):
    """The block's function, from its parameters and statistics in ``state``."""

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var = state[f'{name}.running_mean'], state[f'{name}.running_var']
        weight, bias = state[f'{name}.weight'], state[f'{name}.bias']
        module = block.get_submodule(name)
        if module.training:
            n = y.numel() // y.shape[1]
            batch_mean, batch_var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
            with torch.no_grad():
                mean.mul_(0.97).add_(0.03 * batch_mean)
                var.mul_(0.97).add_(0.03 * batch_var * n / (n - 1))
                state[f'{name}.num_batches_tracked'] += 1
            mean, var = batch_mean, batch_var
        x_hat = (y - mean[:, None, None]) / (var + 1e-3).sqrt()[:, None, None]
        return x_hat * weight[:, None, None] + bias[:, None, None]

    dilation = block.dilation
    if isinstance(block, SEBottleneck):
        strides = (1, block.stride) if block.style == 'pytorch' else (block.stride, 1)
        y = F.conv2d(x, state['conv1.weight'], stride=strides[0])
        y = norm(y, 'bn1').relu()
        weight = state['conv2.weight']
        groups = y.shape[1] // weight.shape[1]
        y = F.conv2d(
            y, weight, stride=strides[1], padding=dilation, dilation=dilation, groups=groups
        )
        y = norm(y, 'bn2').relu()
        y = norm(F.conv2d(y, state['conv3.weight']), 'bn3')
    else:
        y = F.conv2d(
            x, state['conv1.weight'], stride=block.stride, padding=dilation, dilation=dilation
        )
        y = norm(y, 'bn1').relu()
        y = norm(F.conv2d(y, state['conv2.weight'], padding=1), 'bn2')
    if block.attention is not None:
        prefix = 'attention.'
        params = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        y = formula(y, params, full(**block.attention.settings.to_dict()))
    shortcut = x
    if block.downsample is not None:
        weight = state['downsample.0.weight']
        shortcut = norm(F.conv2d(x, weight, stride=block.stride), 'downsample.1')
    return (y + shortcut).relu()


def gradients(y: Tensor, x: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
    grad = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos()
    grads = torch.autograd.grad(y, [x, *params.values()], grad)
    return dict(zip(['input', *params], grads, strict=True))


def assert_composed(
    block: nn.Module, x: Tensor, formula: Any, full: Any, skip: tuple[str, ...] = ()
) -> None:
    params = {k: p.detach().clone().requires_grad_() for k, p in block.named_parameters()}
    state = {**params, **{k: b.clone() for k, b in block.named_buffers()}}
    leaf, copied = x.detach().requires_grad_(), x.detach().clone().requires_grad_()
    want = composed(block, state, leaf, formula, full)
    got = block(copied)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    want_grads = gradients(want, leaf, params)
    got_grads = gradients(got, copied, dict(block.named_parameters()))
    for name, value in got_grads.items():
        assert value.isfinite().all(), name
        if name not in skip:
            torch.testing.assert_close(
                value, want_grads[name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f'{n}: {m}'
            )
    for name, buffer in block.named_buffers():
        torch.testing.assert_close(buffer, state[name], rtol=0, atol=1e-10)


def inputs(batch: int = 3) -> Tensor:
    return torch.randn(batch, 16, 10, 7).double()


@pytest.mark.parametrize('name', list(ATTENTIONS))
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('kind', [SEBasicBlock, SEBottleneck])
def test_block_equals_composition(name, train, kind, attention_formula, full_settings) -> None:
    for stride, dilation, style in ((1, 1, 'pytorch'), (2, 1, 'pytorch'), (2, 1, 'caffe')):
        block = make(kind, ATTENTIONS[name], stride, dilation=dilation, style=style).train(train)
        assert_composed(block, inputs(), attention_formula, full_settings)


@pytest.mark.parametrize('name', list(ATTENTIONS))
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_identity_shortcut(name, train, attention_formula, full_settings) -> None:
    block = SEBottleneck(16, 4, attention=ATTENTIONS[name], norm_cfg=dict(NORM)).double()
    with torch.no_grad():
        for param in block.parameters():
            param.copy_(torch.randn_like(param) * 0.5)
    assert block.downsample is None
    assert_composed(block.train(train), inputs(), attention_formula, full_settings)


def test_dilation_and_groups(attention_formula, full_settings) -> None:
    block = make(SEBasicBlock, ATTENTIONS['v2'], 1, dilation=2)
    assert_composed(block, inputs(), attention_formula, full_settings)
    wide = {'groups': 4, 'base_width': 16, 'base_channels': 64}
    block = make(SEBottleneck, ATTENTIONS['v2'], 2, dilation=2, **wide)
    assert block.conv2.groups == 4
    assert block.conv2.out_channels == (8 * 16 // 64) * 4
    assert_composed(block, inputs(), attention_formula, full_settings)


@pytest.mark.parametrize('name', list(ATTENTIONS))
def test_norm_in_eval_inside_a_training_block(name, attention_formula, full_settings) -> None:
    block = make(SEBottleneck, ATTENTIONS[name]).train()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert_composed(block, inputs(), attention_formula, full_settings)


@pytest.mark.parametrize('name', ['se', 'constant'])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_zero_gamma(name, train, attention_formula, full_settings) -> None:
    block = make(SEBottleneck, ATTENTIONS[name]).train(train)
    block.norm3.weight.data[::3] = 0
    assert_composed(block, inputs(), attention_formula, full_settings)
    block.norm3.weight.data.zero_()
    assert_composed(block, inputs(), attention_formula, full_settings)


@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_zero_gamma_with_max(train, attention_formula, full_settings) -> None:
    block = make(SEBottleneck, ATTENTIONS['v2']).train(train)
    block.norm3.weight.data[::3] = 0
    # A flat channel's maximum is a tie everywhere: its gradient to gamma is any subgradient.
    assert_composed(block, inputs(), attention_formula, full_settings, skip=('bn3.weight',))


@pytest.mark.parametrize('name', ['se', 'max', 'residual'])
@pytest.mark.parametrize('batch', [1, 2])
def test_small_maps_and_batches(name, batch, attention_formula, full_settings) -> None:
    block = make(SEBottleneck, ATTENTIONS[name], 2).train()
    assert_composed(block, inputs(batch), attention_formula, full_settings)
    tiny = torch.randn(batch + 1, 16, 1, 1).double()
    assert_composed(block, tiny, attention_formula, full_settings)
    block.eval()
    assert block(inputs(0)).shape == (0, 32, 5, 4)


@pytest.mark.parametrize('frozen', [('bn3.weight', 'bn3.bias'), ('conv3.weight',), ('all',)])
@pytest.mark.parametrize('train', [True, False], ids=['train', 'eval'])
def test_frozen_parameters_leave_the_others_right(frozen, train) -> None:
    block = make(SEBottleneck, ATTENTIONS['v2']).train(train)
    twin = copy.deepcopy(block)
    for name, param in block.named_parameters():
        wanted = name.startswith('attention.') if frozen == ('all',) else name not in frozen
        param.requires_grad_(wanted)
    x = inputs()
    for module in (block, twin):
        module(x).square().sum().backward()
    for (name, param), other in zip(block.named_parameters(), twin.parameters(), strict=True):
        if param.requires_grad:
            torch.testing.assert_close(param.grad, other.grad, rtol=1e-10, atol=1e-10)
        else:
            assert param.grad is None, name


@pytest.mark.parametrize('name', list(ATTENTIONS))
@pytest.mark.parametrize('kind', [SEBasicBlock, SEBottleneck])
def test_checkpointing_changes_no_number(name: str, kind: type[nn.Module]) -> None:
    plain = make(kind, ATTENTIONS[name], 2).train()
    saving = make(kind, ATTENTIONS[name], 2, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    results = []
    for block in (plain, saving):
        x = inputs() if not results else results[0][0].detach().clone()
        x.requires_grad_()
        y = block(x)
        results.append((x, y, gradients(y, x, dict(block.named_parameters()))))
    torch.testing.assert_close(results[1][1], results[0][1], rtol=0, atol=1e-12)
    for key, value in results[1][2].items():
        torch.testing.assert_close(value, results[0][2][key], rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', ['none', 'se', 'avgmax', 'residual'])
@pytest.mark.parametrize('norm', [{'type': 'GN', 'num_groups': 4}, {'type': 'IN', 'affine': True}])
def test_other_norms(name: str, norm: dict[str, Any], attention_formula, full_settings) -> None:
    block = SEBottleneck(32, 8, norm_cfg=norm, attention=ATTENTIONS[name]).double()
    with torch.no_grad():
        for param in block.parameters():
            param.copy_(torch.randn_like(param) * 0.5)
    x = torch.randn(2, 32, 6, 6).double().requires_grad_()
    got = gradients(block(x), x, dict(block.named_parameters()))
    y = block.norm1(block.conv1(x)).relu()
    y = block.norm2(block.conv2(y)).relu()
    y = block.norm3(block.conv3(y))
    if name != 'none':
        settings = full_settings(**resolve_attention(ATTENTIONS[name]).to_dict())
        y = attention_formula(y, dict(block.attention.named_parameters()), settings)
    out = (y + x).relu()
    torch.testing.assert_close(block(x), out, rtol=0, atol=1e-10)
    want = gradients(out, x, dict(block.named_parameters()))
    for key, value in got.items():
        torch.testing.assert_close(value, want[key], rtol=1e-10, atol=1e-10)


def test_attention_comes_between_the_norm_and_the_plugins(attention_formula, full_settings) -> None:
    plugins = [
        {'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'position': 'after_conv3'},
        {'cfg': {'type': 'ContextBlock', 'ratio': 0.5, 'postfix': 2}, 'position': 'after_conv3'},
        {'cfg': {'type': 'ContextBlock', 'ratio': 0.5, 'postfix': 3}, 'position': 'after_conv2'},
    ]
    block = make(SEBottleneck, {'preset': 'se_avgmax'}, plugins=plugins).eval()
    x = inputs()
    y = block.norm1(block.conv1(x)).relu()
    y = block.context_block3(block.norm2(block.conv2(y)).relu())
    y = block.norm3(block.conv3(y))
    settings = full_settings(**resolve_attention('se_avgmax').to_dict())
    y = attention_formula(y, dict(block.attention.named_parameters()), settings)
    y = block.context_block2(block.context_block(y))
    want = (y + block.downsample(x)).relu()
    torch.testing.assert_close(block(x), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize('kind', [SEBasicBlock, SEBottleneck])
def test_shortcut_is_not_gated(kind: type[nn.Module]) -> None:
    block = make(kind, {'preset': 'se'}, 2).eval()
    plain = make(kind, None, 2).eval()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if 'attention' not in k})
    nn.init.zeros_(block.attention.fc2.weight)
    nn.init.zeros_(block.attention.fc2.bias)
    last = plain.norm3 if kind is SEBottleneck else plain.norm2
    last.weight.data *= 0.5
    last.bias.data *= 0.5
    x = inputs()
    torch.testing.assert_close(block(x), plain(x), rtol=0, atol=1e-12)


def test_large_mean_keeps_its_precision() -> None:
    block = make(SEBottleneck, {'preset': 'sepp_v2'}).train()
    with torch.no_grad():
        block.norm2.bias.fill_(100)
        block.norm2.weight.fill_(0.1)
        block.conv3.weight.abs_()
    x = inputs()
    want = copy.deepcopy(block)(x)
    plain = make(SEBottleneck, None).train()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if 'attention' not in k})
    usual = (plain.float()(x.float()) - copy.deepcopy(plain).double()(x)).abs().max()
    error = (block.float()(x.float()) - want).abs().max()
    assert error < 10 * usual + 1e-4


@pytest.mark.parametrize('name', ['none', 'se', 'v2', 'residual'])
def test_low_precision_and_autocast(name: str) -> None:
    block = make(SEBottleneck, ATTENTIONS[name]).float().train()
    x = inputs().float()
    want = copy.deepcopy(block)(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = copy.deepcopy(block)(x)
    torch.testing.assert_close(y.float(), want, rtol=0.1, atol=0.1)
    low = copy.deepcopy(block).bfloat16()(x.bfloat16())
    low.sum().backward()
    torch.testing.assert_close(low.float(), want, rtol=0.1, atol=0.15)


@pytest.mark.parametrize('kind', [SEBasicBlock, SEBottleneck])
def test_channels_last_and_copies(kind: type[nn.Module]) -> None:
    block = make(kind, ATTENTIONS['v2'], 2).train()
    x = inputs()
    twin, turned = copy.deepcopy(block), copy.deepcopy(block)
    turned = turned.to(memory_format=torch.channels_last)
    want = block(x)
    assert torch.equal(twin(x), want)
    got = turned(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)
