"""The switches of the backbone that change how it computes: channels_last and compile."""

import copy
from typing import Any

import pytest
import torch
from support.precision import LAYOUTS, worst
from support.tails import FULL
from support.versions import compiles
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from mmse.benchmark.measure import total
from mmse.benchmark.networks import build_detectors, detector_batch
from mmse.models import SEResNet
from mmse.utils.errors import UserError

pytestmark = pytest.mark.usefixtures('single_thread')

# As a detector feeds them that keeps the ratio of its images: height and width both differ.
SIZES = ((64, 96), (96, 64), (64, 128), (128, 64), (96, 96), (160, 96), (64, 64))


def build(**changes: Any) -> SEResNet:
    torch.manual_seed(0)
    settings = {'base_channels': 8, 'norm_eval': False, 'attention': FULL, **changes}
    net = SEResNet(settings.pop('depth', 18), zero_init_residual=False, **settings).double()
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn_like(param) * 0.1)
    return net.train()


def step(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    outs = net(x)
    sum(out.square().mean() for out in outs).backward()
    got = {f'out{i}': out.detach() for i, out in enumerate(outs)}
    return got | {name: p.grad.clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize('changes', [{}, {'depth': 50, 'deep_stem': True}], ids=str)
def test_channels_last(changes: dict[str, Any]) -> None:
    nets = [build(channels_last=last, **changes) for last in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(2, 3, 64, 96).double()
    want, got = (step(net, x) for net in nets)
    assert worst(got, want) < (1e-9, '')
    for net, layout in zip(nets, LAYOUTS, strict=True):
        for out in net(x):
            assert out.is_contiguous()  # what MMCV's kernels take it for
        # Also those that came from a checkpoint in the usual format.
        assert net.layer1[0].conv2.weight.is_contiguous(memory_format=layout)


def test_a_detector_does_not_depend_on_the_memory_format() -> None:
    """MMCV's RoIAlign reads the memory of a map as if it were contiguous."""
    detectors = [build_detectors(18, {'channels_last': last})['full'].eval() for last in (0, 1)]
    detectors[1].load_state_dict(detectors[0].state_dict())
    batch = detector_batch(2, (96, 128), torch.device('cpu'))
    losses = []
    for detector in detectors:
        torch.manual_seed(0)  # proposals that are sampled
        losses.append(detector(**copy.deepcopy(batch), mode='loss'))
    for name, want in losses[0].items():
        torch.testing.assert_close(losses[1][name], want, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
@compiles
@pytest.mark.parametrize('norm_eval', [False, True])
def test_sizes_that_vary_compile_once_a_mode(norm_eval: bool) -> None:
    """One compilation for training, one for evaluation, whatever the images' sizes."""
    counter = CompileCounter()
    net = build(norm_eval=norm_eval, compile={'backend': counter, 'dynamic': True})
    for mode, expected in ((True, 1), (False, 2), (True, 2), (False, 2)):
        net.train(mode)
        for size in SIZES:
            with torch.set_grad_enabled(mode):
                net(torch.randn(2, 3, *size).double())
        assert counter.frame_count == expected, mode


@pytest.mark.slow
def test_compiled_equals_eager_at_every_size() -> None:
    """Without the code generator, which takes minutes for symbolic sizes on the CPU."""
    small = {'num_stages': 1, 'strides': (1,), 'dilations': (1,), 'out_indices': (0,)}
    nets = [build(**small), build(compile={'backend': 'aot_eager', 'dynamic': True}, **small)]
    assert list(nets[0].state_dict()) == list(nets[1].state_dict())
    for size in SIZES[:3]:
        x = torch.randn(2, 3, *size).double()
        want, got = (step(net, x) for net in nets)
        assert worst(got, want) < (1e-9, '')
        for net in nets:
            net.eval()
        with torch.no_grad():
            for a, b in zip(*(net(x) for net in nets), strict=True):
                torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
        for net in nets:
            net.train()


@pytest.mark.slow
@compiles
def test_detector_with_images_of_varying_sizes() -> None:
    """Training and prediction of a Faster R-CNN whose backbone is compiled and channels_last."""
    counter = CompileCounter()
    detectors = build_detectors(18, {'channels_last': True, 'compile': {'backend': counter}})
    detector = detectors['full'].train()
    for size in SIZES:
        losses = detector(**detector_batch(2, size, torch.device('cpu')), mode='loss')
        total(losses).backward()
    compiled_for_training = counter.frame_count
    # The first size, then one compilation for any other.
    assert compiled_for_training == 2
    detector.eval()
    with torch.no_grad():
        for size in SIZES:
            batch = detector_batch(2, size, torch.device('cpu'))
            found = detector(**batch, mode='predict')
            assert all(torch.isfinite(sample.pred_instances.scores).all() for sample in found)
    assert counter.frame_count <= 4


def test_channels_last_without_deformable_convolution() -> None:
    """MMCV's kernels read a channels_last map as if it were contiguous."""
    dcn = {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
    with pytest.raises(UserError, match='channels_last and dcn given; allowed: one of them'):
        SEResNet(50, dcn=dcn, stage_with_dcn=(False, False, False, True), channels_last=True)
