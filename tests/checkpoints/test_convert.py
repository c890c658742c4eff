"""Converting weights between packages: renaming, folding, refusals. test_parity.py has the rest."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models import ResNet
from safetensors.torch import load_file
from support.processes import run_script
from torch import Tensor, nn

from mmse.checkpoints.convert import convert, convert_file
from mmse.checkpoints.recorded import recorded_attention
from mmse.models import SEResNet, SEResNetV1d
from mmse.models.settings import PRESETS
from mmse.utils.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = {'base_channels': 16, 'norm_eval': False}
SE8 = {'preset': 'se', 'min_hidden': 8}
Weights = dict[str, Tensor]


def uneven(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def ours(depth: int = 50, attention: Any = SE8, kind: type[SEResNet] = SEResNet) -> Weights:
    return uneven(kind(depth=depth, attention=attention, **SMALL)).state_dict()


def without_records(weights: Weights) -> Weights:
    return {key: value for key, value in weights.items() if not key.endswith('_extra_state')}


def same(a: Weights, b: Weights) -> bool:
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


HEAD = {'fc.weight': torch.arange(6.0).reshape(2, 3), 'fc.bias': torch.ones(2)}


@pytest.mark.parametrize('kind', [SEResNet, SEResNetV1d])
@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
@pytest.mark.parametrize('through', ['timm', 'mmpretrain', 'mmse'])
def test_round_trip(tmp_path: Path, through: str, ending: str, kind: type[SEResNet]) -> None:
    weights = {**ours(kind=kind), **HEAD}
    torch.save(weights, tmp_path / 'a.pth')
    convert_file(tmp_path / 'a.pth', tmp_path / f'b.{ending}', through, SE8)
    # What a torch file says about its attention, one of safetensors has to be told again.
    known = None if ending == 'pth' or through != 'mmse' else SE8
    back = convert_file(tmp_path / f'b.{ending}', tmp_path / 'c.pth', 'mmse', known)
    assert (back.source, back.attention, back.dropped) == (through, SE8, [])
    assert same(torch.load(tmp_path / 'c.pth')['state_dict'], weights)


@pytest.mark.parametrize(('via', 'to'), [('timm', 'mmpretrain'), ('mmpretrain', 'timm')])
def test_between_the_others(via: str, to: str) -> None:
    weights = {**ours(kind=SEResNetV1d), **HEAD}
    direct = convert(weights, to, SE8).weights
    assert same(convert(convert(weights, via, SE8).weights, to).weights, direct)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('to', ['mmse', 'mmpretrain', 'timm'])
def test_plain_networks(to: str, depth: int) -> None:
    """Without attention only stem and shortcuts have other names, in depth 18 as well."""
    weights = {**ours(depth, None, SEResNetV1d), **HEAD}
    there = convert(weights, to).weights
    assert same(convert(there, 'plain').weights, weights)
    stem = {'mmse': 'stem.4.bias', 'mmpretrain': 'backbone.stem.1.bn.bias', 'timm': 'conv1.4.bias'}
    assert torch.equal(there[stem[to]], weights['stem.4.bias'])


def test_names_in_an_mmpretrain_classifier() -> None:
    theirs = convert({**ours(kind=SEResNetV1d), **HEAD}, 'mmpretrain', SE8).weights
    names = {
        'backbone.stem.2.conv.weight',
        'backbone.stem.2.bn.running_var',
        'backbone.layer1.0.downsample.0.weight',  # no pooling where the stride is 1
        'backbone.layer2.0.downsample.1.weight',
        'backbone.layer3.5.se_layer.conv1.conv.bias',
        'head.fc.weight',
    }
    assert names <= set(theirs)
    assert theirs['backbone.layer1.0.downsample.0.weight'].dim() == 4


def test_only_backbone_and_classifier_are_taken() -> None:
    weights = {f'module.backbone.{key}': value for key, value in ours().items()}
    rest = ['module.neck.conv.weight', 'module.bbox_head.fc.weight', 'module.data.mean']
    stripped = {k.removeprefix('module.'): v for k, v in weights.items()}
    stripped |= {key.removeprefix('module.'): torch.ones(1) for key in rest}
    conversion = convert(stripped, 'timm', SE8)
    assert conversion.dropped == [key.removeprefix('module.') for key in rest]
    assert same(convert(conversion.weights, 'mmse').weights, ours_again(stripped))


def ours_again(weights: Weights) -> Weights:
    return {k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')}


VARIANTS = [
    *PRESETS,
    {'gate': 'hardsigmoid', 'temperature': 3},
    {'residual': True, 'alpha': -0.7},
    {'residual': True, 'alpha': 0.3, 'learnable_alpha': True, 'bias': False},
    [None, 'se', None, ['sepp_v2_residual', None, 'se_max']],
]


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_folding_gives_the_plain_network_back(variant: Any, depth: int) -> None:
    if depth == 18 and isinstance(variant, list):
        variant = [*variant[:3], variant[3][:2]]
    plain = uneven(ResNet(depth=depth, **SMALL)).double()
    plain.eval()
    net = SEResNet(depth=depth, attention=variant, **SMALL).double().eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    folded = convert(net.state_dict(), 'plain', variant).weights
    other = ResNet(depth=depth, **SMALL).double()
    other.load_state_dict(folded, strict=True)
    other.eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(other(x), plain(x), strict=True):
            assert ((a - b).abs().max() / b.abs().max()).item() <= 1e-12
    if variant == 'se':  # a factor of 2 leaves every digit
        assert same(folded, plain.state_dict())


def test_folding_uses_the_learned_alpha() -> None:
    net = SEResNet(18, attention='sepp_v2_residual', **SMALL)
    with torch.no_grad():
        for stage in net.res_layers:
            for block in getattr(net, stage):
                block.attention.alpha.fill_(0.5)
                block.attention.fc2.weight.zero_()
                block.attention.fc2.bias.zero_()
                block.bn2.weight.fill_(3)
                block.bn2.bias.fill_(-2)
    folded = convert(net.state_dict(), 'plain', 'sepp_v2_residual').weights
    assert (folded['layer4.1.bn2.weight'] == 3.75).all()
    assert (folded['layer4.1.bn2.bias'] == -2.5).all()
    assert torch.equal(folded['layer4.1.bn1.weight'], net.layer4[1].bn1.weight)


def test_folding_group_norm() -> None:
    norm_cfg = {'type': 'GN', 'num_groups': 4}
    plain = ResNet(depth=50, norm_cfg=norm_cfg, zero_init_residual=False, **SMALL)
    net = SEResNet(50, norm_cfg=norm_cfg, attention='se', **SMALL)
    net.load_state_dict(plain.state_dict(), strict=False)
    assert same(convert(net.state_dict(), 'plain', 'se').weights, plain.state_dict())


def test_identity_start_and_folding_beside_a_plugin() -> None:
    """GCNet's context block stands after the last norm, and after the attention."""
    plugin = {'cfg': {'type': 'ContextBlock', 'ratio': 0.25}, 'position': 'after_conv3'}
    plain = uneven(ResNet(depth=50, plugins=[plugin], **SMALL)).double()
    plain.eval()
    net = SEResNet(50, attention='sepp_v2_residual', plugins=[plugin], **SMALL).double().eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(net(x), plain(x), strict=True):
            assert ((a - b).abs().max() / b.abs().max()).item() <= 1e-12
    folded = convert(net.state_dict(), 'plain', 'sepp_v2_residual').weights
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(folded[key], value, rtol=1e-14, atol=0)


def moved(attention: Any, change: dict[str, Any] | None = None, depth: int = 50) -> Weights:
    """Weights that do not say which attention they are of, and are changed."""
    weights = without_records(ours(depth, attention))
    for key, value in (change or {}).items():
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    return weights


PLUGIN = {'layer2.0.context_block.conv.weight': torch.ones(1)}
ZERO = {'layer1.0.attention.fc2.weight': torch.zeros(64, 8, 1, 1)}


@pytest.mark.parametrize(
    ('weights', 'to', 'attention', 'message'),
    [
        (moved(SE8), 'plain', SE8, r'attention of layer1\.0 is not at the identity start'),
        (moved(SE8, ZERO), 'plain', SE8, r'attention of layer1\.0 is not at the identity'),
        (moved(SE8), 'timm', None, r'does not say which attention .* give --attention'),
        (moved('sepp_v2'), 'timm', None, r'timm have no layer1\.0\.attention\.fusion_logits'),
        (
            moved('sepp_v2_residual'),
            'mmpretrain',
            None,
            r'mmpretrain have no layer1\.0\.attention\.',
        ),
        (
            moved({**SE8, 'learnable_temperature': True}),
            'timm',
            None,
            r'timm have no layer1\.0\.attention\.raw_temperature',
        ),
        (moved({**SE8, 'bias': False}), 'timm', None, r'layer1\.0\.attention has no fc1\.bias'),
        (
            moved('se'),
            'timm',
            'se',
            r'layer1\.0\.attention has the hidden width 4; in timm 64 .* 8',
        ),
        (moved([None, SE8, SE8, SE8]), 'mmpretrain', None, r'layer1\.0 has no attention; in mmpre'),
        (moved(SE8, depth=18), 'mmpretrain', SE8, r'layer1\.0 is a basic block'),
        (
            moved({**SE8, 'squeeze': 'max', 'act': 'silu'}),
            'timm',
            {**SE8, 'squeeze': 'max', 'act': 'silu'},
            r"layer1\.0: timm has only the preset 'se', .* squeeze='max', act='silu'",
        ),
        (
            moved({**SE8, 'residual': True, 'gate': 'hardsigmoid'}),
            'timm',
            {**SE8, 'residual': True, 'gate': 'hardsigmoid'},
            r"has gate='hardsigmoid', residual=True, alpha=1\.0",
        ),
        (
            moved(SE8),
            'timm',
            'sepp_v2',
            r'does not fit: layer1\.0\.attention\.fusion_logits is missing',
        ),
        (moved(SE8), 'timm', [None, SE8, SE8, SE8], r'does not fit: layer1\.0 has some in the wei'),
        (moved(SE8), 'timm', [SE8], r'a list of 1 given; allowed: 4'),
        (moved(SE8, PLUGIN), 'timm', SE8, r'timm have no layer2\.0\.context_block\.conv\.weight'),
        (moved(None), 'timm', SE8, r'--attention is for weights of mmse .* these are plain'),
        ({'blocks.0.weight': torch.ones(1)}, 'timm', None, r'no weights of a ResNet'),
    ],
)
def test_refusals(weights: Weights, to: str, attention: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(weights, to, attention)


@pytest.mark.parametrize(
    ('text', 'attention'),
    [
        ("model = dict(backbone=dict(attention='se', depth=50), type='X')", 'se'),
        (
            "model = {'backbone': {'attention': dict(preset='se', alpha=-1.5)}}",
            {'preset': 'se', 'alpha': -1.5},
        ),
        (
            "x = 1\nmodel = dict(backbone=dict(attention=[None, ('se', None), dict(bias=True)]))",
            [None, ['se', None], {'bias': True}],
        ),
        ('model = dict(backbone=dict(depth=50))', None),
        ('model = dict(detector=dict(backbone=dict(depth=50)))', None),
        ('optimizer = 1', None),
    ],
)
def test_attention_of_a_config_text(text: str, attention: Any) -> None:
    assert recorded_attention({'meta': {'cfg': text}}) == attention


def test_a_config_text_is_never_run(tmp_path: Path) -> None:
    file = tmp_path / 'made'
    for call in (f'open({str(file)!r}, "w")', 'dict([1])', 'a.b', 'SE ='):
        text = f'model = dict(backbone=dict(attention={call}))'
        with pytest.raises(UserError, match='attention in its config cannot be read'):
            recorded_attention({'meta': {'cfg': text}})
    assert not file.exists()


def test_a_training_checkpoint_says_its_attention(tmp_path: Path) -> None:
    """MMEngine's own text of a config; what the user says must agree with it."""
    from mmengine.config import Config

    backbone = {'type': 'mmse.SEResNet', 'depth': 50, 'attention': SE8}
    cfg = Config({'model': {'backbone': backbone, 'neck': None}, 'work_dir': 'x'})
    weights = {f'module.backbone.{key}': value for key, value in ours().items()}
    src = tmp_path / 'iter_1.pth'
    torch.save({'state_dict': weights, 'meta': {'cfg': cfg.pretty_text}}, src)
    convert_file(src, tmp_path / 'timm.pth', 'timm')
    differs = rf'^{src}: --attention differs from the file: its layer1\.0 has avg, C/16 \(min 8\)'
    with pytest.raises(UserError, match=differs):
        convert_file(src, tmp_path / 'other.pth', 'timm', 'se')
    assert not (tmp_path / 'other.pth').exists()


@pytest.mark.parametrize(
    ('src', 'dst', 'message'),
    [
        ('a.pth', 'a.pth', r'a\.pth is there already'),
        ('a.pth', 'no/c.pth', r'there is no folder .*no'),
        ('a.pth', 'c.pth', r'^\S*a\.pth: .* give --attention'),
        ('b.pth', 'c.pth', r'b\.pth: no such checkpoint'),
    ],
)
def test_files_that_cannot_be_converted(tmp_path: Path, src: str, dst: str, message: str) -> None:
    torch.save(without_records(ours(18)), tmp_path / 'a.pth')
    before = (tmp_path / 'a.pth').read_bytes()
    with pytest.raises(UserError, match=message):
        convert_file(tmp_path / src, tmp_path / dst, 'timm')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']
    assert (tmp_path / 'a.pth').read_bytes() == before


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    weights = ours()
    torch.save({**weights, 'neck.weight': torch.ones(1)}, tmp_path / 'a.pth')

    run = partial(run_script, ROOT / 'tools/convert_weights.py', cwd=tmp_path)

    to_timm = ('a.pth', 'b.safetensors', '--to', 'timm')
    done = run(*to_timm, '--attention', 'preset=se,min_hidden=8')
    assert (done.returncode, done.stderr) == (0, '')
    kept = [key for key in weights if not key.endswith('_extra_state')]
    assert f'b.safetensors: {len(kept)} tensors, mmse to timm' in done.stdout
    assert '1 not converted, such as neck.weight' in done.stdout
    theirs = load_file(tmp_path / 'b.safetensors')
    assert torch.equal(theirs['layer4.2.se.fc2.bias'], weights['layer4.2.attention.fc2.bias'])
    done = run(*to_timm)
    assert done.returncode == 2
    assert done.stderr == 'error: b.safetensors is there already: remove it or give another name\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.safetensors']
