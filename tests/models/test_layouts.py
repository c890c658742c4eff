"""The names that other packages give to the weights of a ResNet."""

import pytest

from mmse.models.layouts import detect_layout, to_mmse

KEYS = {
    'mmpretrain': {
        'stem.0.conv.weight': 'stem.0.weight',
        'stem.1.bn.running_mean': 'stem.4.running_mean',
        'stem.2.bn.bias': 'stem.7.bias',
        'layer1.0.conv1.weight': 'layer1.0.conv1.weight',
        'layer3.5.se_layer.conv1.conv.weight': 'layer3.5.attention.fc1.weight',
        'layer3.5.se_layer.conv2.conv.bias': 'layer3.5.attention.fc2.bias',
    },
    'timm': {
        'conv1.0.weight': 'stem.0.weight',
        'conv1.4.bias': 'stem.4.bias',
        'conv1.6.weight': 'stem.6.weight',
        'bn1.running_var': 'stem.7.running_var',
        'layer1.0.bn1.weight': 'layer1.0.bn1.weight',
        'layer2.3.se.fc1.weight': 'layer2.3.attention.fc1.weight',
        'layer2.3.se.fc2.bias': 'layer2.3.attention.fc2.bias',
        'layer2.0.downsample.1.weight': 'layer2.0.downsample.1.weight',
    },
    'mmse': {'layer1.0.conv1.weight': 'layer1.0.conv1.weight', 'bn1.bias': 'bn1.bias'}
    | dict.fromkeys(['layer1.0.attention.fc1.weight'], 'layer1.0.attention.fc1.weight'),
    'plain': {'layer1.0.conv1.weight': 'layer1.0.conv1.weight', 'bn1.bias': 'bn1.bias'},
}


@pytest.mark.parametrize('layout', KEYS)
def test_keys_of_every_layout(layout: str) -> None:
    assert detect_layout(KEYS[layout]) == layout
    # The value that travels with a key is the key's own expected name.
    assert to_mmse(KEYS[layout]) == (layout, {name: name for name in KEYS[layout].values()})


def test_timm_plain_stem_keeps_its_names() -> None:
    keys = {'conv1.weight': 0, 'bn1.bias': 1, 'layer1.0.se.fc1.weight': 2}
    expected = {'conv1.weight': 0, 'bn1.bias': 1, 'layer1.0.attention.fc1.weight': 2}
    assert to_mmse(keys) == ('timm', expected)
