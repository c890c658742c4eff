"""Layer-wise learning rate decay: the layers that mmpretrain counts, written out by hand."""

import pytest

from mmse.models import SEResNet

# The layer of each block of each stage, and the number of layers with stem and head.
LAYERS: dict[int, tuple[list[list[int]], int]] = {
    34: ([[1] * 3, [2, 2, 3, 3], [4, 4, 4, 5, 5, 5], [6] * 3], 8),
    50: ([[1] * 3, [2, 2, 3, 3], [4, 4, 4, 5, 5, 5], [6] * 3], 8),
    101: (
        [
            [1] * 3,
            [2, 2, 3, 3],
            [*[4] * 3, *[5] * 3, *[6] * 3, *[7] * 3, *[8] * 3, *[9] * 3, *[10] * 3, 11, 11],
            [12] * 3,
        ],
        14,
    ),
    152: (
        [
            [1] * 3,
            [*[2] * 4, *[3] * 4],
            [layer for layer in range(4, 13) for _ in range(4)],
            [13] * 3,
        ],
        15,
    ),
}


@pytest.mark.parametrize('depth', LAYERS)
@pytest.mark.parametrize('num_stages', [4, 3])
@pytest.mark.parametrize('prefix', ['backbone.', ''])
def test_layers_of_parameters(depth: int, num_stages: int, prefix: str) -> None:
    stages, number = LAYERS[depth]
    net = SEResNet(
        depth,
        base_channels=4,
        num_stages=num_stages,
        strides=(1, 2, 2, 2)[:num_stages],
        dilations=(1,) * num_stages,
        out_indices=(num_stages - 1,),
        attention='sepp_v2_residual',
    )
    for name, _ in net.named_parameters():
        stage, _, rest = name.partition('.')
        layer = 0
        if stage.startswith('layer'):
            layer = stages[int(stage[-1]) - 1][int(rest.partition('.')[0])]
        assert net.get_layer_depth(f'{prefix}{name}', prefix) == (layer, number), name
    if prefix:
        assert net.get_layer_depth('head.fc.weight', prefix) == (number - 1, number)


def test_the_smallest_depth() -> None:
    """mmpretrain has no layers for ResNet-18; they follow from the same rule."""
    net = SEResNet(18, base_channels=4, attention='se')
    layers = [net.get_layer_depth(f'layer{i}.1.attention.fc1.bias')[0] for i in range(1, 5)]
    assert layers == [1, 2, 3, 4] and net.get_layer_depth('conv1.weight') == (0, 6)
