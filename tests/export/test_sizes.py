"""Which sizes an ONNX file takes, and which files are not written."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from mmdet.models.backbones.csp_darknet import Focus
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmse.export.any_size import average_cells
from mmse.export.onnx import TOLERANCE, export_onnx, parity
from mmse.export.parts import input_channels
from mmse.models import SEResNet, SEResNetV1c
from mmse.utils.errors import UserError

HEADS = {
    'PSPHead': {'pool_scales': (1, 2, 3, 6)},
    'UPerHead': {'pool_scales': (1, 2, 3, 6), 'in_channels': [8, 16], 'in_index': [0, 1]},
    'FPNHead': {
        'in_channels': [8, 16],
        'in_index': [0, 1],
        'feature_strides': [2, 4],
        'align_corners': True,
    },
    'ISAHead': {'isa_channels': 8, 'down_factor': (8, 8)},
    'LightHamHead': {
        'in_channels': [8, 16],
        'in_index': [0, 1],
        'ham_channels': 16,
        'ham_kwargs': {'MD_R': 4},
        'norm_cfg': {'type': 'BN'},
    },
}


class Net(nn.Module):
    """Two stages of stride 2, and a head."""

    def __init__(self, head: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((channels, 8), (8, 16))
        )
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return self.head(maps)


def net(head: str, channels: int = 3) -> Net:
    init_default_scope('mmseg')
    torch.manual_seed(0)
    settings = {'in_channels': 16, 'in_index': 1, 'channels': 8, 'num_classes': 3} | HEADS[head]
    return Net(MODELS.build({'type': head, **settings}), channels).eval()


def relative(file, module, images):
    """The file's largest difference from torch, over the largest value, by onnxruntime itself."""
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    [found] = session.run(None, {'images': images.numpy()})
    with torch.no_grad():
        wanted = module(images).numpy()
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def shape(file):
    return onnxruntime.InferenceSession(file).get_inputs()[0].shape


@pytest.mark.parametrize('cells', [(1, 1), (2, 2), (3, 6), (6, 5), (7, 9)])
@pytest.mark.parametrize('size', [(2, 3, 12, 12), (1, 2, 7, 11), (3, 5, 4)])
def test_pooling_by_matrices_is_adaptive_pooling(size, cells):
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(average_cells(x, cells), adaptive_avg_pool2d(x, cells), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize('head', ['PSPHead', 'UPerHead', 'FPNHead', 'ISAHead'])
def test_heads_that_pool_resize_and_pad_take_any_size(head, tmp_path):
    module, file = net(head), tmp_path / 'net.onnx'
    differences = export_onnx(module, file, [(1, 32, 32), (2, 48, 64)], False)
    # The third is compared without being asked for.
    assert list(differences) == [(1, 32, 32), (2, 48, 64), (2, 65, 97)]
    assert max(differences.values()) < TOLERANCE
    assert shape(file) == ['batch', 3, 'height', 'width']
    for size in ((3, 3, 29, 71), (1, 3, 80, 16)):
        assert relative(file, module, torch.randn(size)) < TOLERANCE


@pytest.mark.slow
def test_a_dimension_in_which_sizes_agree_is_fixed(tmp_path):
    module = net('PSPHead', channels=5)
    export_onnx(module, tmp_path / 'one.onnx', [(1, 32, 48)], True)
    assert shape(tmp_path / 'one.onnx') == [1, 5, 32, 48]
    assert relative(tmp_path / 'one.onnx', module, torch.randn(1, 5, 32, 48)) < TOLERANCE
    export_onnx(module, tmp_path / 'batch.onnx', [(1, 32, 48), (2, 32, 48)], True)
    assert shape(tmp_path / 'batch.onnx') == ['batch', 5, 32, 48]
    assert relative(tmp_path / 'batch.onnx', module, torch.randn(4, 5, 32, 48)) < TOLERANCE


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_channels_of_backbones_that_do_not_begin_with_a_plain_convolution(channels):
    assert input_channels(Focus(channels, 8)) == channels
    assert input_channels(SEResNet(18, in_channels=channels, base_channels=8)) == channels
    assert input_channels(SEResNetV1c(depth=18, in_channels=channels, base_channels=8)) == channels
    assert input_channels(nn.PReLU()) == 3


class Branching(nn.Module):
    """Computes something else of heights that 32 divides."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] % 32 == 0 else x * 3


def test_a_graph_that_holds_the_traced_size_is_not_written(tmp_path):
    module, file = Branching().eval(), tmp_path / 'net.onnx'
    file.write_text('an older file')
    sentence = (
        'at 1x3x32x32 the file of Branching differs from it by 5.0e-01, .* give one to --sizes'
    )
    with pytest.raises(UserError, match=sentence):
        export_onnx(module, file, [(1, 32, 32), (1, 64, 32)], False)
    assert file.read_text() == 'an older file'
    assert list(tmp_path.iterdir()) == [file]
    export_onnx(module, file, [(1, 32, 32)], False)
    assert shape(file) == [1, 3, 32, 32]
    assert relative(file, module, torch.randn(1, 3, 32, 32)) < TOLERANCE


class Whole(nn.Module):
    """Takes heights and widths that 16 divides, as a U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch._check(x.shape[2] % 16 == 0, lambda: 'the height must be a multiple of 16')
        return self.conv(x)


def test_sizes_that_the_network_does_not_take(tmp_path):
    file = tmp_path / 'net.onnx'
    with pytest.raises(UserError, match='Whole does not take 2x3x40x32: the height must be'):
        export_onnx(Whole().eval(), file, [(1, 32, 32), (2, 40, 32)], False)
    assert list(tmp_path.iterdir()) == []
    # It is not asked for the odd size either.
    assert list(export_onnx(Whole().eval(), file, [(1, 32, 32), (2, 48, 32)], False)) == [
        (1, 32, 32),
        (2, 48, 32),
    ]


class Fixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * int(x.shape[2])


def test_code_that_fixes_a_size_is_told_by_torch(tmp_path):
    sizes = [(1, 32, 32), (1, 48, 32)]
    with pytest.raises(UserError, match='Fixing into one for any height, since its code fixes'):
        export_onnx(Fixing().eval(), tmp_path / 'net.onnx', sizes, False)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_random_cannot_be_compared(tmp_path):
    with pytest.raises(UserError, match='Net gives other outputs each time'):
        export_onnx(net('LightHamHead'), tmp_path / 'net.onnx', [(1, 32, 32)], False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_number_agrees_with_nothing(tmp_path):
    class Divided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x) / (x - x)

    with pytest.raises(UserError, match='differs from it by nan'):
        export_onnx(Divided().eval(), tmp_path / 'net.onnx', [(1, 4, 4)], False)
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_another_shape_and_files_that_do_not_load(tmp_path):
    module, file = nn.Conv2d(3, 4, 1).eval(), tmp_path / 'net.onnx'
    export_onnx(module, file, [(2, 4, 4)], False)
    assert parity(file, module, {(2, 4, 4): [torch.zeros(1, 4, 4, 4)]}) == {(2, 4, 4): math.inf}
    assert parity(file, module, {(1, 4, 4): [torch.zeros(1, 4, 4, 4)]}) == {(1, 4, 4): math.inf}
    file.write_bytes(b'no graph')
    assert parity(file, module, {(2, 4, 4): [torch.zeros(2, 4, 4, 4)]}) == {(2, 4, 4): math.inf}
