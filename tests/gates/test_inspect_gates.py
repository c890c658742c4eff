"""Looking inside: class-wise gates by hand, energies, and the page."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from support.engine import CONFIGS, args_for_train
from support.processes import in_process, run_script
from torch import nn

from mmse.engine.run import train
from mmse.gates.collect import Collected, class_weights, energies
from mmse.gates.watch import attentions, recorded
from mmse.models import SEResNet

pytest_plugins = ('support.engine_fixtures',)
ROOT = CONFIGS.parent


class Model(nn.Module):
    """As much of a detector as is asked for."""

    def __init__(self, **settings):
        super().__init__()
        self.backbone = SEResNet(18, base_channels=8, zero_init_residual=False, **settings)

    def data_preprocessor(self, batch, training):
        return batch

    def extract_feat(self, inputs):
        return self.backbone(inputs)


def test_class_wise_means_by_hand():
    gates = np.array([[0.2, 0.4], [0.6, 0.8], [1.0, 0.0]])
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]])
    means = Collected(('a', 'b', 'c'), {'layer1.0': gates}, weights).by_class('layer1.0')
    assert list(means) == ['a', 'b']  # nobody shows c
    np.testing.assert_allclose(means['a'], [(0.2 + 0.3) / 1.5, (0.4 + 0.4) / 1.5])
    np.testing.assert_allclose(means['b'], [(0.3 + 1.0) / 1.5, (0.4 + 0.0) / 1.5])


def test_weights_of_a_segmenters_classes_are_shares_of_the_labelled_area():
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[0, 0, 1, 255], [2, 0, 1, 255]]]))
    np.testing.assert_allclose(class_weights(sample, 4), [3 / 6, 2 / 6, 1 / 6, 0])


def test_weights_of_a_detectors_classes_are_the_boxes_that_are_there():
    sample = DetDataSample(gt_instances=InstanceData(labels=torch.tensor([2, 0, 2])))
    assert class_weights(sample, 4).tolist() == [1, 0, 1, 0]
    assert class_weights(DetDataSample(), 2).tolist() == [0, 0]


def test_energy_after_is_the_gated_energy_before():
    model = Model(attention='se').eval()
    x = torch.randn(2, 3, 64, 64)
    with recorded(model) as gates, torch.no_grad():
        model.backbone(x)
    seen = {}
    attention = dict(attentions(model))['layer3.1']
    handle = attention.register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    found = {e.stage: e for e in energies(model, {'inputs': x})}
    handle.remove()
    assert list(found) == ['layer1', 'layer2', 'layer3', 'layer4']
    branch, gate = seen['x'][0], gates['layer3.1'][0]
    before = branch.square().mean(0).sqrt().numpy()
    after = (branch * gate[:, None, None]).square().mean(0).sqrt().numpy()
    np.testing.assert_allclose(found['layer3'].before, before, rtol=1e-5)
    np.testing.assert_allclose(found['layer3'].after, after, rtol=1e-4)
    assert all(not a._forward_hooks for _, a in attentions(model))


def test_recording_keeps_the_computation_to_the_bit():
    model = Model(attention='sepp_v2_residual').train()
    x = torch.randn(2, 3, 64, 64)
    plain = [out.clone() for out in model.eval().backbone(x)]
    with recorded(model) as gates:
        outs = model.backbone(x)
    assert len(gates) == 8
    assert all(torch.equal(a, b) for a, b in zip(outs, plain, strict=True))
    gates.clear()
    model.backbone(x)
    assert gates == {}


@pytest.fixture(scope='module')
def trained(tiny_configs, tmp_path_factory):
    """A tiny detector and segmenter, each trained for a step, with its checkpoint."""
    found = {}
    for kind, config in tiny_configs.items():
        folder = tmp_path_factory.mktemp(kind)
        options = {'train_cfg.max_iters': 2, 'default_hooks.checkpoint.interval': 2}
        assert in_process(train, args_for_train(config, folder, cfg_options=options)) == 0
        found[kind] = config, folder / 'iter_2.pth'
    return found


def run_tool(*arguments):
    return run_script(ROOT / 'tools/inspect_gates.py', *arguments, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_the_page_of_a_trained_model(trained, kind, tmp_path):
    config, checkpoint = trained[kind]
    run = run_tool(config, checkpoint, '--out', tmp_path)
    assert run.returncode == 0, run.stderr
    names = {'distributions.png', 'classes.png', 'learned.png', 'energy.png', 'gates.html'}
    assert {f.name for f in tmp_path.iterdir()} == names
    for name in names - {'gates.html'}:
        assert (np.asarray(Image.open(tmp_path / name).convert('L')) < 200).mean() > 0.003
    page = (tmp_path / 'gates.html').read_text()
    assert page.count('data:image/png;base64') == 4
    assert '4 images' in page
    assert 'layer1.0 to layer4.1: avg+max (softmax), C/16 (min 4)' in page


@pytest.mark.slow
def test_own_images_have_no_classes(trained, tmp_path):
    config, checkpoint = trained['seg']
    Image.new('RGB', (80, 64), (90, 120, 30)).save(tmp_path / 'mine.png')
    run = run_tool(config, checkpoint, '--data', tmp_path / 'mine.png', '--out', tmp_path / 'out')
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / 'out/classes.png').exists()
    run = run_tool(config, checkpoint, '--data', tmp_path / 'none.png', '--out', tmp_path / 'no')
    assert run.returncode == 2
    assert 'there is no image' in run.stderr
    assert not (tmp_path / 'no').exists()


@pytest.mark.slow
def test_a_model_without_attention_is_refused(trained, tmp_path):
    config, checkpoint = trained['seg']
    options = ('--cfg-options', 'model.backbone.attention=None')
    run = run_tool(config, checkpoint, '--out', tmp_path / 'no', *options)
    assert run.returncode == 2
    assert 'there are no gates to look at' in run.stderr
    assert not (tmp_path / 'no').exists()
