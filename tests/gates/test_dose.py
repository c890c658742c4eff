"""The dose against gains computed by hand, and holding gains constant."""

import math

import pytest
import torch
from torch import nn

from mmse.gates.dose import at_start, dose, held, mean_gains, of_network, start_weights, summed
from mmse.models import SEResNet

ATTENTIONS = ['se', 'sepp_v2_residual', {'gate': 'hardsigmoid', 'residual': True, 'alpha': -0.5}]


def network(attention, fused=True):
    torch.manual_seed(0)
    net = SEResNet(18, base_channels=8, attention=attention, fused=fused).eval()
    for _, block in net.attention_blocks():
        nn.init.normal_(block.attention.fc2.weight, std=2.0)
        if isinstance(block.attention.alpha, nn.Parameter):
            nn.init.constant_(block.attention.alpha, 0.7)
    return net


def shaken(net):
    """Each attention with other weights, as if they were those of the start."""
    found = at_start(net, start_weights(net))
    for attention in found.values():
        for parameter in attention.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return found


def by_hand(attention, x):
    """Gates and gains of an attention."""
    s = [x.mean((2, 3)), x.amax((2, 3))]
    p = (
        attention.fusion_logits.softmax(0)
        if attention.fusion_logits is not None
        else (1, 1 if 'max' in attention.settings.squeeze else 0)
    )
    z = attention.fc2(
        {'relu': torch.relu, 'silu': nn.functional.silu}[attention.settings.act](
            attention.fc1(p[0] * s[0] + p[1] * s[1])
        )
    )
    hard = attention.settings.gate == 'hardsigmoid'
    g = ((z / 6 + 0.5).clamp(0, 1)) if hard else torch.sigmoid(z)
    return g, 1 + float(attention.alpha) * g if attention.settings.residual else g


def gains_by_hand(net, started, images):
    """Gates, gains, and gains at the start of every block and image, from composed modules."""
    found = {}

    def keep(name, attention):
        def hook(_, args, output):
            g, q = by_hand(attention, args[0])
            torch.testing.assert_close(output, args[0] * q[..., None, None], rtol=1e-4, atol=1e-5)
            found.setdefault(name, []).append((g, q, by_hand(started[name], args[0])[1]))

        return hook

    handles = [
        block.attention.register_forward_hook(keep(name, block.attention))
        for name, block in net.attention_blocks()
    ]
    with torch.no_grad():
        for batch in images:
            net(batch)
    for handle in handles:
        handle.remove()
    return {
        name: tuple(torch.cat(part).double() for part in zip(*pairs, strict=True))
        for name, pairs in found.items()
    }


@pytest.mark.parametrize('attention', ATTENTIONS, ids=str)
@pytest.mark.parametrize('fused', [True, False])
def test_the_dose_is_that_of_gains_by_hand(attention, fused):
    net = network(attention, fused)
    started = shaken(net)
    images = [torch.randn(3, 3, 32, 32), torch.randn(2, 3, 32, 48)]
    with torch.no_grad(), summed(net, started) as sums:
        for batch in images:
            net(batch)
    rows = dose(sums)
    by_hand = gains_by_hand(net, started, images)
    assert list(rows) == list(by_hand)
    for name, (g, q, before) in by_hand.items():
        mean = before.mean(0)
        mean = mean.clamp(min=0.1 * mean.mean())
        r = q / mean
        expected = {
            'moved': (r - before / mean).square().mean().sqrt(),
            'mean': r.mean(),
            'over_channels': r.mean(0).std(correction=0),
            'over_images': r.var(0, correction=0).mean().sqrt(),
            'closed': (g < 0.05).double().mean(),
            'open': (g > 0.95).double().mean(),
        }
        for key, value in expected.items():
            assert rows[name][key] == pytest.approx(float(value), rel=1e-3, abs=1e-5), (name, key)
        torch.testing.assert_close(mean_gains(sums)[name], q.mean(0), rtol=1e-4, atol=1e-5)
    for key in ('moved', 'over_images'):
        squares = [row[key] ** 2 for row in rows.values()]
        assert of_network(rows, key) == pytest.approx(math.sqrt(sum(squares) / len(squares)))


@pytest.mark.parametrize('attention', ['se', 'sepp_v2_residual'])
def test_from_the_identity_the_dose_is_the_distance_of_r_from_one(attention):
    """Its parts: the mean of r, its spread over the channels and its spread over the images."""
    net = network(attention)
    started = at_start(net, start_weights(net))
    for module in started.values():
        nn.init.zeros_(module.fc2.weight)
    with torch.no_grad(), summed(net, started) as sums:
        net(torch.randn(5, 3, 32, 32))
    for row in dose(sums).values():
        parts = (row['mean'] - 1, row['over_channels'], row['over_images'])
        assert row['moved'] == pytest.approx(math.hypot(*parts), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize('attention', ATTENTIONS, ids=str)
@pytest.mark.parametrize('fused', [True, False])
def test_held_gains_are_what_each_branch_is_multiplied_by(attention, fused):
    """Against a plain network whose last norms carry the constant gains."""
    net, plain = network(attention, fused), SEResNet(18, base_channels=8).eval()
    weights = {k: v for k, v in net.state_dict().items() if '.attention.' not in k}
    plain.load_state_dict(weights)
    gains = {
        name: torch.rand(block.attention.in_channels) + 0.2
        for name, block in net.attention_blocks()
    }
    blocks = dict(plain.named_modules())
    for name, constant in gains.items():
        norm = blocks[name].norm2
        norm.weight.data *= constant
        norm.bias.data *= constant
    image = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        before = net(image)
        with held(net, gains):
            found = net(image)
        after = net(image)
    for a, b in zip(found, plain(image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(found[-1], before[-1], rtol=1e-2)


def test_what_watched_before_watches_again():
    net = network('se')
    seen = []
    for _, block in net.attention_blocks():
        block.attention.watcher = lambda gate, squeezed: seen.append((gate, squeezed))
    with torch.no_grad(), summed(net, at_start(net, start_weights(net))):
        net(torch.randn(1, 3, 32, 32))
    assert not seen
    net(torch.randn(1, 3, 32, 32))
    assert len(seen) == 8


def test_nothing_moves_without_attention():
    net = SEResNet(18, base_channels=8).eval()
    with torch.no_grad(), summed(net, {}) as sums:
        net(torch.randn(1, 3, 32, 32))
    assert (dose(sums), of_network({}, 'moved')) == ({}, 0.0)


@pytest.mark.parametrize('attention', ATTENTIONS, ids=str)
def test_features_that_change_are_no_dose(attention):
    """Attention as torch draws it: its gains follow the features, and it has not moved by that."""
    net, images = network(attention), torch.randn(4, 3, 32, 32)
    weights = start_weights(net)
    means = []
    for _ in range(2):
        with torch.no_grad(), summed(net, at_start(net, weights)) as sums:
            net(images)
        rows = dose(sums)
        assert of_network(rows, 'moved') < 1e-6 < of_network(rows, 'over_images')
        means.append(torch.cat(list(mean_gains(sums).values())))
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_var.uniform_(0.2, 0.5)
    assert (means[0] - means[1]).abs().max() > 0.01
    # And the weights of the start are those that were kept, whatever has become of them.
    for _, block in net.attention_blocks():
        nn.init.normal_(block.attention.fc2.weight, std=2.0)
    for name, module in at_start(net, weights).items():
        assert torch.equal(module.fc2.weight, weights[name]['fc2.weight'])
    with torch.no_grad(), summed(net, at_start(net, weights)) as sums:
        net(images)
    assert of_network(dose(sums), 'moved') > 0.01


def test_gates_that_are_shut_from_the_start_have_a_finite_dose():
    net = network({'gate': 'hardsigmoid'})
    started = at_start(net, start_weights(net))
    for module in started.values():
        nn.init.zeros_(module.fc2.weight)
        nn.init.constant_(module.fc2.bias[:4], -100.0)
    with torch.no_grad(), summed(net, started) as sums:
        net(torch.randn(2, 3, 32, 32))
    assert math.isfinite(of_network(dose(sums), 'moved'))


@pytest.mark.slow
@pytest.mark.usefixtures('policy')
@pytest.mark.parametrize('squeeze', ['avg', 'max', 'avg+max'])
def test_every_way_to_compute_shows_the_squeezes(squeeze):
    net = network({'squeeze': squeeze}).train()
    started = at_start(net, start_weights(net))
    with summed(net, started) as sums:
        net(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    rows = dose(sums)
    assert len(rows) == 8
    assert of_network(rows, 'moved') < 1e-5


@pytest.mark.parametrize('attention', ATTENTIONS, ids=str)
@pytest.mark.parametrize('fused', [True, False])
def test_the_attention_of_the_start_in_place_of_the_learned_one(attention, fused):
    """Against the same network with the weights of the start, a learned alpha included."""
    net, other = network(attention, fused), network(attention, fused)
    started = shaken(net)
    for name, block in other.attention_blocks():
        block.attention.load_state_dict(started[name].state_dict())
    image = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        learned = net(image)
        with held(net, started):
            found = net(image)
        for a, b in zip(found, other(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[-1], learned[-1], rtol=1e-2)


def test_an_alpha_of_zero_can_be_held():
    net = network({'residual': True, 'learnable_alpha': True, 'alpha': 0.0})
    for _, block in net.attention_blocks():
        nn.init.zeros_(block.attention.alpha)
    image = torch.randn(1, 3, 32, 32)
    ones = {name: torch.ones(b.attention.in_channels) for name, b in net.attention_blocks()}
    with torch.no_grad():
        before = net(image)
        with held(net, ones):
            after = net(image)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


def test_two_backbones_keep_their_names():
    pair = nn.ModuleDict({'colour': network('se'), 'depth': network('se_max')})
    with torch.no_grad(), summed(pair, at_start(pair, start_weights(pair))) as sums:
        for net in pair.values():
            net(torch.randn(1, 3, 32, 32))
    assert len(sums) == 16
    assert {name.partition('.layer')[0] for name in sums} == {'colour', 'depth'}
