"""Backbones of fused blocks against plain ones: numbers, paths, tracing, processes."""

import copy
import logging
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.distributed as dist
from mmengine.analysis import get_model_complexity_info
from mmengine.logging import MMLogger
from support.precision import LAST, beyond, maps, network_bars, worst
from support.processes import start
from support.tails import FULL
from support.versions import compiles, exports
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmse.models import SEBottleneck, SEResNet, policies

pytestmark = pytest.mark.usefixtures('single_thread')


def backbone(fused: bool, depth: int = 18, **changes: Any) -> SEResNet:
    torch.manual_seed(0)
    settings = {'base_channels': 8, 'norm_eval': False, 'attention': FULL, **changes}
    net = SEResNet(depth, zero_init_residual=False, fused=fused, **settings).double()
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn_like(param) * 0.1)
    return net.train()


def paths(net: SEResNet) -> set[str]:
    return {block.path for name in net.res_layers for block in getattr(net, name)}


def step(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    outs = net(x)
    sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs).backward()
    got = {f'out{i}': out.detach() for i, out in enumerate(outs)} | {'x': x.grad}
    got |= {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return got | dict(net.named_buffers())


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'depth': 50},
        {'depth': 50, 'norm_cfg': {'type': 'SyncBN', 'requires_grad': True}},
        {'depth': 50, 'with_cp': True},
        {'norm_eval': True},
        {'norm_cfg': {'type': 'BN', 'requires_grad': False}, 'norm_eval': True},
        {'frozen_stages': 2},
        {'frozen_stages': 2, 'train_frozen_attention': True},
        {'attention': [None, 'se', ['sepp_v2', None], 'se_max']},
        {'deep_stem': True, 'avg_down': True, 'channels_last': True},
    ],
    ids=str,
)
def test_backbone_equals_plain(changes: dict[str, Any]) -> None:
    changes = dict(changes)
    layout = LAST if changes.pop('channels_last', False) else torch.contiguous_format
    x = torch.randn(2, 3, 64, 96).double().to(memory_format=layout)
    nets = [backbone(fused, **changes).to(memory_format=layout) for fused in (False, True)]
    assert 'fused' in paths(nets[1]) and 'fused' not in paths(nets[0])
    want, got = (step(net, x) for net in nets)
    assert worst(got, want) < (1e-9, '')
    tracked = [name for name in want if name.endswith('num_batches_tracked')]
    assert all(torch.equal(got[name], want[name]) for name in tracked)
    for net in nets:
        net.eval()
    with torch.no_grad():
        for a, b in zip(*(net(x) for net in nets), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
            assert a.stride() == b.stride()
    with torch.inference_mode():
        torch.testing.assert_close(nets[1](x)[-1], nets[0](x)[-1], rtol=1e-10, atol=1e-10)


def block(**changes: Any) -> SEBottleneck:
    return SEBottleneck(32, 8, **{'attention': {'preset': 'sepp_v2'}, **changes})


PLAIN_CASES: list[tuple[dict[str, Any], str]] = [
    ({'attention': None}, 'no attention'),
    ({'fused': False}, 'fused=False'),
    ({'norm_cfg': {'type': 'GN', 'num_groups': 4}}, 'GroupNorm'),
    ({'norm_cfg': {'type': 'IN'}}, 'InstanceNorm2d'),
    ({'norm_cfg': {'type': 'BN', 'affine': False, 'requires_grad': False}}, 'without weight'),
    (
        {'plugins': [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'position': 'after_conv3'}]},
        'plugins',
    ),
]


@pytest.mark.parametrize(('changes', 'reason'), PLAIN_CASES, ids=lambda v: str(v)[:40])
def test_what_takes_the_plain_path(changes: dict[str, Any], reason: str) -> None:
    module = block(**changes)
    assert module.path.startswith('plain (') and reason in module.path
    module.eval()(torch.randn(2, 32, 5, 5))


def test_other_devices_compose_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = block().eval(), torch.randn(2, 32, 5, 5)
    want = module(x)
    monkeypatch.delitem(policies.POLICIES, 'cpu')
    assert module.path == 'plain (its device is neither CPU nor CUDA)'
    torch.testing.assert_close(module(x), want, rtol=1e-5, atol=1e-5)


def test_hooks_see_their_modules() -> None:
    module = block()
    assert module.path == 'fused'
    for target in (module.conv3, module.norm3, module.attention, module.attention.fc2):
        seen: list[Any] = []
        handle = target.register_forward_hook(lambda *a, seen=seen: seen.append(a))
        assert module.path == 'plain (hooks)'
        module(torch.randn(2, 32, 5, 5))
        assert len(seen) == 1
        handle.remove()
        assert module.path == 'fused'


def test_empty_batch_and_single_values() -> None:
    module = block()
    empty = torch.randn(0, 32, 5, 5, requires_grad=True)
    before = copy.deepcopy(module.norm3.state_dict())
    module.norm3.eval()
    module(empty).sum().backward()
    assert empty.grad.shape == empty.shape
    assert torch.equal(module.norm3.running_mean, before['running_mean'])
    module.train()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        module(torch.randn(1, 32, 1, 1))
    assert module.eval()(torch.randn(1, 32, 1, 1)).shape == (1, 32, 1, 1)


def test_repr_and_log_tell_the_path() -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    attention = [None, 'se', 'se', 'se']
    plugin = {'type': 'ContextBlock', 'ratio': 0.5}
    stages = (False, False, True, False)
    plugins = [{'cfg': plugin, 'stages': stages, 'position': 'after_conv3'}]
    net = SEResNet(50, base_channels=8, attention=attention, plugins=plugins).train()
    logger.removeHandler(handler)
    for text in (repr(net), '\n'.join(messages)):
        lines = [line.strip() for line in text.splitlines()]
        assert 'layer1: 3 x no attention' in lines
        assert any(s.startswith('layer2: 4 x avg') and s.endswith(', fused') for s in lines)
        assert any(
            s.startswith('layer3') and s.endswith('plain (plugins after the attention)')
            for s in lines
        )
    plain = repr(SEResNet(18, base_channels=8, attention='se', fused=False))
    assert plain.count('plain (fused=False)') == 4


@compiles
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_tracing_takes_the_plain_path() -> None:
    net = backbone(True).float().eval()
    x = torch.randn(2, 3, 64, 64)
    exact, bars = network_bars(backbone(False).eval(), x)
    traced = torch.jit.trace(net, x)
    exported = torch.export.export(net, (x,)).module()
    symbolic = torch.fx.symbolic_trace(net)
    for function in (traced, exported, symbolic):
        assert not beyond(maps(function(x)), exact, bars)
    flops = [
        get_model_complexity_info(backbone(fused).float(), (3, 64, 64))['flops']
        for fused in (True, False)
    ]
    assert flops[0] == flops[1] > 1e6


@exports
@pytest.mark.slow
def test_onnx(tmp_path: Path) -> None:
    attention = [FULL, {'gate': 'hardsigmoid'}, 'se', FULL]
    net, plain = (backbone(fused, attention=attention).float().eval() for fused in (True, False))
    assert paths(net) == {'fused'}
    file = tmp_path / 'backbone.onnx'
    torch.onnx.export(
        net,
        (torch.randn(1, 3, 64, 64),),
        file,
        input_names=['x'],
        dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(file)
    for shape in ((1, 3, 64, 64), (3, 3, 96, 160)):
        x = torch.randn(shape)
        exact, bars = network_bars(plain, x)
        found = maps(map(torch.from_numpy, session.run(None, {'x': x.numpy()})))
        assert not beyond(found, exact, bars)


@compiles
@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_compiled(backend: str) -> None:
    """One graph, of the plain composition, forward and backward, in training."""
    modules = [block(attention=FULL).double() for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    compiled = torch.compile(modules[1], fullgraph=True, backend=backend)
    results = []
    for function, module in zip((modules[0], compiled), modules, strict=True):
        x = torch.linspace(-1, 1, 2 * 32 * 49).cos().view(2, 32, 7, 7).double().requires_grad_()
        function(x).square().sum().backward()
        results.append({'x': x.grad, **{name: p.grad for name, p in module.named_parameters()}})
        results[-1].update(module.named_buffers())
    assert worst(results[1], results[0]) < (1e-9, '')


def train_on_two(rank: int, store: str, result: str) -> None:
    """Three steps of the fused and the plain backbone; writes the worst difference."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    trained = []
    for fused in (False, True):
        net = backbone(fused)
        wrapped = DistributedDataParallel(net, broadcast_buffers=False)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        for index in range(3):
            generator = torch.Generator().manual_seed(10 * index + rank)
            x = torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            sum(out.square().mean() for out in wrapped(x)).backward()
            optimizer.step()
        got = {name: p.detach() for name, p in net.named_parameters()}
        got |= {f'grad of {name}': p.grad for name, p in net.named_parameters()}
        trained.append(got | dict(net.named_buffers()))
        for name, p in net.named_parameters():
            both = [torch.empty_like(p) for _ in range(2)]
            dist.all_gather(both, p.detach())
            assert torch.equal(*both), name
    if rank == 0:
        Path(result).write_text(str(worst(trained[1], trained[0])[0]))


def test_data_parallel(tmp_path: Path) -> None:
    result = tmp_path / 'result'
    waits = [start(train_on_two, rank, str(tmp_path / 'store'), str(result)) for rank in range(2)]
    assert [wait() for wait in waits] == [0, 0]
    assert float(result.read_text()) < 1e-9
