"""A checkpoint that does not belong to the model is refused before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from support.engine import args_for_test, args_for_train, shapes_at
from torch import nn

from mmse.checkpoints.belonging import check_checkpoint, check_classes
from mmse.engine import run
from mmse.engine.config import load_config
from mmse.models import SEResNet
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)
pytestmark = pytest.mark.usefixtures('empty_folder')


def checkpoint_of(config: Path, path: Path, **options: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """Untrained weights of a config's model, saved as MMEngine does."""
    cfg = load_config(str(config), {f'model.{k}': v for k, v in options.items()})
    init_default_scope(cfg.default_scope)
    weights = MODELS.build(cfg.model).state_dict()
    torch.save({'meta': {'epoch': 0, 'iter': 3}, 'state_dict': weights}, path)
    return path, weights


def test_checkpoint_of_another_depth(
    tiny_configs: dict[str, Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    config = tiny_configs['det']
    data = shapes_at(tmp_path / 'data', True)
    path, weights = checkpoint_of(config, tmp_path / 'deeper.pth', **{'backbone.depth': 34})
    depths = 'its stages have 3, 4, 6, 3 blocks, those of the config 2, 2, 2, 2'

    resumed = refused(run.train, args_for_train(config, None, cfg_options=data, resume=str(path)))
    tested = refused(run.test, args_for_test(config, path, None, cfg_options=data))
    started = {'load_from': str(path)}
    started = refused(run.train, args_for_train(config, None, cfg_options={**data, **started}))
    for sentence in (resumed, tested, started):
        assert f'{path} does not belong to this model' in sentence
        assert depths in sentence and 'layer1.2.' in sentence

    # Found in the work dir by --resume, where it is the latest.
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    path.rename(work_dir / 'iter_3.pth')
    (work_dir / 'last_checkpoint').write_text(f'{work_dir}/iter_3.pth')
    latest = refused(run.train, args_for_train(config, work_dir, cfg_options=data, resume='auto'))
    assert f'{work_dir}/iter_3.pth does not belong' in latest and depths in latest

    # A bare backbone that the config names, with and without a prefix.
    bare = {k.removeprefix('backbone.'): v for k, v in weights.items() if 'backbone' in k}
    init_cfg = {'_delete_': True, 'type': 'Pretrained', 'checkpoint': str(tmp_path / 'bare.pth')}
    for prefix in ('', 'net'):
        torch.save({f'{prefix}.{k}'.lstrip('.'): v for k, v in bare.items()}, tmp_path / 'bare.pth')
        options = {**data, 'model.backbone.init_cfg': {**init_cfg, 'prefix': prefix or None}}
        sentence = refused(run.train, args_for_train(config, None, cfg_options=options))
        assert 'bare.pth, which model.backbone.init_cfg names: the backbone has no' in sentence


def test_checkpoint_of_another_attention_or_head(
    tiny_configs: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny_configs['det']
    cfg = load_config(str(config))
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    same, weights = checkpoint_of(config, tmp_path / 'same.pth')
    check_checkpoint(str(same), model, whole=True)
    torch.save({f'module.{key}': value for key, value in weights.items()}, same)
    check_checkpoint(str(same), model, whole=True)

    plain, _ = checkpoint_of(config, tmp_path / 'plain.pth', **{'backbone.attention': None})
    with pytest.raises(UserError, match=r'it has no backbone\.layer1\.0\.attention\.'):
        check_checkpoint(str(plain), model, whole=True)
    check_checkpoint(str(plain), model, whole=False)  # attention may be new

    other, _ = checkpoint_of(config, tmp_path / 'x.pth', **{'roi_head.bbox_head.num_classes': 80})
    sentence = r'bbox_head\.fc_cls\.weight is \(81, 32\) in it and \(7, 32\) in the model'
    with pytest.raises(UserError, match=sentence):
        check_checkpoint(str(other), model, whole=True)
    check_checkpoint(str(other), model, whole=False)  # and so may heads

    wide, _ = checkpoint_of(
        config,
        tmp_path / 'wide.pth',
        **{'backbone.base_channels': 16, 'neck.in_channels': [16, 32, 64, 128]},
    )
    sentence = r'conv1\.weight is \(16, 3, 7, 7\)'
    for whole in (True, False):
        with pytest.raises(UserError, match=sentence):
            check_checkpoint(str(wide), model, whole)
    # A backbone of mmdet, whose weights have the same names.
    cfg.model.backbone = {'type': 'ResNet', 'depth': 18, 'base_channels': 8}
    plain_model = MODELS.build(cfg.model)
    check_checkpoint(str(plain), plain_model, whole=False)
    with pytest.raises(UserError, match=sentence):
        check_checkpoint(str(wide), plain_model, whole=False)
    torch.save({'state_dict': {'fc.weight': torch.zeros(1)}}, same)
    with pytest.raises(UserError, match=r'it has no backbone\.\*'):
        check_checkpoint(str(same), model, whole=False)


@pytest.mark.parametrize('place', ['student.backbone', 'detector.backbone', 'backbone.backbone'])
def test_backbones_at_other_places(place: str, tmp_path: Path) -> None:
    """Teachers and students, trackers, and networks around a backbone_cfg."""
    file = tmp_path / 'weights.pth'

    def nested(attention: Any) -> nn.Module:
        model: nn.Module = SEResNet(18, base_channels=8, attention=attention)
        for name in reversed(place.split('.')):
            holder = nn.Module()
            holder.add_module(name, model)
            model = holder
        return model

    def save(weights: dict[str, torch.Tensor]) -> None:
        torch.save({'state_dict': weights}, file)

    ours, plain = nested('sepp_v2'), nested(None)
    save(ours.state_dict())
    check_checkpoint(str(file), ours, whole=True)
    counters = {k: v for k, v in ours.state_dict().items() if 'num_batches' not in k}
    save(counters)  # as converted from elsewhere
    check_checkpoint(str(file), ours, whole=True)
    save(plain.state_dict())
    check_checkpoint(str(file), ours, whole=False)  # new attention starts at the identity
    with pytest.raises(UserError, match=rf'it has no {place}\.layer1\.0\.attention'):
        check_checkpoint(str(file), ours, whole=True)
    short = {k: v for k, v in plain.state_dict().items() if 'layer3.1.conv2' not in k}
    save(short)
    with pytest.raises(UserError, match=r'the weights have no layer3\.1\.conv2\.weight'):
        check_checkpoint(str(file), ours, whole=False)
    bare = {k.removeprefix(f'{place}.'): v for k, v in plain.state_dict().items()}
    save({f'backbone.{k}': v for k, v in bare.items()})
    if place == 'student.backbone':  # mmdet takes a plain detector for both
        check_checkpoint(str(file), ours, whole=False)
    elif place == 'detector.backbone':
        with pytest.raises(UserError, match=rf'it has no {place}\.\*'):
            check_checkpoint(str(file), ours, whole=False)


@pytest.mark.parametrize('key', ['dataset_meta', None])
def test_class_names_of_a_checkpoint(key: str | None, tmp_path: Path) -> None:
    """As mmdet 3 and mmseg 1 write them, and as mmdet 2 and mmseg 0 did."""
    names = ('nut', 'bolt')
    meta = {key: {'classes': names}} if key else {'CLASSES': names}
    torch.save({'meta': meta, 'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'x.pth')
    check_classes(str(tmp_path / 'x.pth'), ['nut', 'bolt'], 'the data')
    check_classes(str(tmp_path / 'x.pth'), None, 'the data')
    for others, order in ((('bolt', 'nut'), ' in that order'), (('nut',), '')):
        with pytest.raises(UserError) as caught:
            check_classes(str(tmp_path / 'x.pth'), others, 'the data')
        assert str(caught.value) == (
            f'{tmp_path}/x.pth was trained on the classes nut, bolt; the data have '
            f'{", ".join(others)}: give data with the same classes{order}'
        )
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'bare.pth')
    check_classes(str(tmp_path / 'bare.pth'), names, 'the data')
