"""``type='mmse.…'`` resolves in processes that import nothing of mmse themselves."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNTOUCHED = "assert not [m for m in sys.modules if m.partition('.')[0] == 'mmse']"


def run(code: str, cwd: Path) -> None:
    """Run the code in a fresh interpreter that can import mmse but did not."""
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1'}
    program = 'import sys\nimport torch\n' + textwrap.dedent(code)
    command = [sys.executable, '-W', 'ignore', '-c', program]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'mmengine'])
def test_resolves_from_each_root(package: str, tmp_path: Path) -> None:
    run(
        f"""
        from {package}.registry import MODELS
        {UNTOUCHED}
        net = MODELS.build(dict(type='mmse.SEResNet', depth=18, base_channels=8, attention='se'))
        assert type(net).__module__.startswith('mmse.'), type(net)
        assert net.layer1[0].attention is not None
        for name in ('SEResNetV1c', 'SEResNetV1d', 'SEResNeXt'):
            net = MODELS.build(dict(type='mmse.' + name, depth=50, base_channels=8))
            assert type(net).__name__ == name
        gate = MODELS.build(dict(type='mmse.ChannelAttention', in_channels=8, preset='sepp_v2'))
        y = gate(torch.randn(1, 8, 4, 4))
        assert y.shape == (1, 8, 4, 4)
        """,
        tmp_path,
    )


CONFIGS = {
    'mmdet': ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'mmse.SEResNet'),
    'mmseg': ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmse.SEResNetV1c'),
}


@pytest.mark.parametrize('package', sorted(CONFIGS))
def test_installed_config_with_one_type_changed(package: str, tmp_path: Path) -> None:
    base, backbone = CONFIGS[package]
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{base}'\nmodel = dict(backbone=dict(type='{backbone}', attention='se_gated'))\n"
    )
    run(
        f"""
        from mmengine.config import Config
        from mmengine.registry import init_default_scope
        from {package}.registry import MODELS
        cfg = Config.fromfile('config.py')
        {UNTOUCHED}
        assert 'custom_imports' not in cfg
        init_default_scope(cfg.get('default_scope', '{package}'))
        model = MODELS.build(cfg.model)
        names = [n for n, _ in model.named_parameters() if '.attention.' in n]
        assert len(names) == 16 * 4, len(names)
        """,
        tmp_path,
    )


def test_models_need_neither_mmdet_nor_mmseg_nor_compiled_ops(tmp_path: Path) -> None:
    run(
        """
        for name in ('mmdet', 'mmseg', 'mmcv.ops', 'mmcv._ext'):
            sys.modules[name] = None
        from mmengine.registry import MODELS
        for kind, depth in (('SEResNet', 18), ('SEResNetV1c', 50), ('SEResNetV1d', 50)):
            cfg = dict(type='mmse.' + kind, depth=depth, base_channels=8, attention='sepp_v2')
            net = MODELS.build(cfg).eval()
            assert len(net(torch.randn(1, 3, 32, 32))) == 4
        """,
        tmp_path,
    )


def test_importing_the_models_imports_no_codebase(tmp_path: Path) -> None:
    run(
        """
        import mmse.models
        heavy = [m for m in ('mmdet', 'mmseg', 'mmcv.ops') if m in sys.modules]
        assert not heavy, heavy
        """,
        tmp_path,
    )


def test_plugin_in_another_resnet(tmp_path: Path) -> None:
    run(
        f"""
        from mmdet.registry import MODELS
        {UNTOUCHED}
        plugin = dict(
            cfg=dict(type='mmse.ChannelAttention', preset='se_max', postfix='_x'),
            stages=(False, False, True, False),
            position='after_conv3')
        net = MODELS.build(dict(type='ResNet', depth=50, base_channels=8, plugins=[plugin]))
        names = {{n.split('.')[0] for n, m in net.named_modules() if n.endswith('_x')}}
        assert names == {{'layer3'}}, names
        """,
        tmp_path,
    )
