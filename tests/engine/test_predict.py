"""Predictions of a trained model on new images."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.engine import args_for_test
from support.trained import Trained, args_for_predict

import mmse
from mmse.datasets.scenes import CLASSES
from mmse.datasets.shapes import SEG_PALETTE
from mmse.engine import run
from mmse.engine.predict import predict
from mmse.engine.results import write_label_map
from mmse.utils.errors import UserError

pytest_plugins = ('support.trained',)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('fresh_logger', 'no_env_report')]
Models = Callable[[str], Trained]


def test_the_results_give_the_map_of_a_test(
    trained: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a ground truth made of some of the detections, moved, so that the mAP is not 0."""
    model, out = trained('det'), tmp_path / 'out'
    predict(args_for_predict(model, out, model.images, batch_size=3))
    results = json.loads((out / 'predictions.bbox.json').read_text())
    described = json.loads((out / 'images.json').read_text())
    assert [c['name'] for c in described['categories']] == list(CLASSES)

    annotations = model.images.parent / 'annotations/instances_val.json'
    content = json.loads(annotations.read_text())
    ids = {image['file_name']: image['id'] for image in content['images']}
    assert {image['file_name'] for image in described['images']} == set(ids)
    numbers = {category['name']: category['id'] for category in content['categories']}
    for entry in results:
        entry['image_id'] = ids[entry['file_name']]
        entry['category_id'] = numbers[CLASSES[entry['category_id'] - 1]]
    content['annotations'] = [
        {**entry, 'id': k + 1, 'bbox': [x + 1, y, w, h], 'area': w * h, 'iscrowd': 0}
        for k, entry in enumerate(results[::7])
        for x, y, w, h in [entry['bbox']]
        if w >= 2 and h >= 2
    ]
    made = tmp_path / 'made.json'
    made.write_text(json.dumps(content))
    truth = COCO(str(made))
    evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert 0.02 < evaluation.stats[0] < 0.98

    measured: dict[str, float] = {}
    monkeypatch.setattr(run, 'summarise_test', lambda cfg, metrics, _: measured.update(metrics))
    options = {'test_dataloader.dataset.ann_file': str(made), 'test_evaluator.ann_file': str(made)}
    run.test(args_for_test(model.config, model.checkpoint, tmp_path / 'test', cfg_options=options))
    assert measured['coco/bbox_mAP'] == pytest.approx(evaluation.stats[0], abs=5e-4)


def test_pictures_keep_subfolders_and_names(trained: Models, tmp_path: Path) -> None:
    model, folder, out = trained('det'), tmp_path / 'photos', tmp_path / 'out'
    first, second = sorted(model.images.iterdir())[:2]
    for name in ('cam0/0001.png', 'cam1/0001.png', 'cam1/0001.jpg', 'cam1/deep/GRÜN.PNG'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(Path(name).suffix.lower(), cv2.imread(str(first)))[1]
        (folder / name).write_bytes(encoded.tobytes())
    (folder / 'cam0/._0001.png').write_bytes(b'of a file system')
    (folder / 'cam0/notes.txt').write_text('no image')
    predict(args_for_predict(model, out, folder, second, score=0.9))
    drawn = {str(p.relative_to(out / 'pictures')) for p in (out / 'pictures').rglob('*.*')}
    expected = {'cam0/0001.png', 'cam1/0001.png.png', 'cam1/0001.jpg.png', 'cam1/deep/GRÜN.png'}
    assert drawn == expected | {f'{second.stem}.png'}
    listed = json.loads((out / 'images.json').read_text())['images']
    assert {'cam1/deep/GRÜN.PNG', second.name} < {image['file_name'] for image in listed}
    results = json.loads((out / 'predictions.bbox.json').read_text())
    assert all(entry['score'] >= 0.9 for entry in results)


def test_a_video_and_some_classes(trained: Models, tmp_path: Path) -> None:
    model, out = trained('det'), tmp_path / 'out'
    frames = [cv2.imread(str(path)) for path in sorted(model.images.iterdir())[:3]]
    size = (frames[0].shape[1], frames[0].shape[0])
    code = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(tmp_path / 'clip.avi'), code, 10, size)
    for frame in frames:
        writer.write(frame)
    writer.release()
    clip = tmp_path / 'clip.avi'
    [sample] = mmse.load_model(str(model.config), str(model.checkpoint), device='cpu')([frames[0]])
    kept = int(sample.pred_instances.labels.mode().values)
    predict(args_for_predict(model, out, clip, classes=[CLASSES[kept]], batch_size=2))
    video = cv2.VideoCapture(str(out / 'pictures/clip.mp4'))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 10)
    results = json.loads((out / 'predictions.bbox.json').read_text())
    assert {(entry['file_name'], entry['frame']) for entry in results} <= {
        ('clip.avi', frame) for frame in range(3)
    }
    assert {entry['category_id'] for entry in results} == {kept + 1}


def test_label_maps_have_the_labels_and_colours(trained: Models, tmp_path: Path) -> None:
    model, out = trained('seg'), tmp_path / 'out'
    predict(args_for_predict(model, out, f'{model.images}/*.jpg', batch_size=2))
    predictor = mmse.load_model(str(model.config), str(model.checkpoint), device='cpu')
    files = sorted(model.images.glob('*.jpg'))
    assert len(files) == 4
    for file in files:
        [sample] = predictor(str(file))
        with Image.open(out / 'labels' / f'{file.stem}.png') as labels:
            assert labels.mode == 'P'
            assert np.array_equal(np.asarray(labels), sample.pred_sem_seg.data.squeeze(0))
            colours = np.array(labels.getpalette()).reshape(-1, 3)[: len(SEG_PALETTE)]
        assert np.array_equal(colours, SEG_PALETTE)
        assert (out / 'pictures' / f'{file.stem}.png').is_file()
    label = int(sample.pred_sem_seg.data.flatten().mode().values)
    name = predictor.classes[label]
    predict(args_for_predict(model, tmp_path / 'one', files[-1], classes=[name], no_draw=True))
    one = np.asarray(Image.open(tmp_path / 'one/labels' / f'{files[-1].stem}.png'))
    assert set(np.unique(one)) <= {label, 255}
    assert not (tmp_path / 'one/pictures').exists()


@pytest.mark.parametrize('classes', [2, 4, 16, 17, 256])
def test_label_maps_keep_every_label(classes: int, tmp_path: Path) -> None:
    """Also the ignored one, beside a palette of few colours."""
    labels = np.array([[0, 1, 255], [classes - 1, 255, 0]])
    write_label_map(labels, tmp_path / 'a/b.png', [(i, i, i) for i in range(classes)])
    with Image.open(tmp_path / 'a/b.png') as image:
        assert np.array_equal(np.asarray(image), labels)


def test_images_that_cannot_be_read_do_not_end_the_others(
    trained: Models, tmp_path: Path, logged_warnings: list[str]
) -> None:
    model = trained('seg')
    good = sorted(model.images.glob('*.jpg'))[0]
    (tmp_path / 'bad.jpg').write_text('<html>')
    predict(args_for_predict(model, tmp_path / 'out', good, tmp_path / 'bad.jpg', batch_size=2))
    assert any('1 images left out' in line and 'bad.jpg' in line for line in logged_warnings)
    assert (tmp_path / 'out/labels' / f'{good.stem}.png').is_file()
    with pytest.raises(UserError, match=r'no image could be predicted: .*bad\.jpg'):
        predict(args_for_predict(model, tmp_path / 'none', tmp_path / 'bad.jpg'))


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'inputs': ['nowhere']}, 'nowhere: no such file, or a folder without images'),
        ({'classes': ['circel']}, '--classes circel: the model has no such class; did you mean'),
        ({'batch_size': 0}, '--batch-size is 0: give 1 or more'),
        ({'checkpoint': 'gone.pth'}, 'gone.pth: no such checkpoint'),
        ({'out': '/dev/null/x'}, '--out /dev/null/x: /dev/null is a file, not a folder'),
    ],
)
def test_mistakes(changes: dict[str, Any], sentence: str, trained: Models, tmp_path: Path) -> None:
    model = trained('det')
    args = args_for_predict(model, tmp_path / 'out', model.images)
    for key, value in changes.items():
        setattr(args, key, value)
    with pytest.raises(UserError, match=sentence):
        predict(args)
    assert not (tmp_path / 'out').exists()


# The inferencers read the checkpoint before they build the model, which imports mmse.
APIS = {
    'det': """
from mmdet.apis import DetInferencer, inference_detector, init_detector
again = DetInferencer(config, checkpoint, device='cpu')(image, no_save_vis=True)['predictions'][0]
found = inference_detector(init_detector(config, checkpoint, device='cpu'), image).pred_instances
assert again['scores'] == found.scores.tolist()
torch.save(found.bboxes, out)
""",
    'seg': """
from mmseg.apis import MMSegInferencer, inference_model, init_model
again = MMSegInferencer(config, checkpoint, device='cpu')(image)['predictions']
labels = inference_model(init_model(config, checkpoint, device='cpu'), image).pred_sem_seg.data
assert (again == labels.squeeze(0).numpy()).all()
torch.save(labels, out)
""",
}


@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_the_apis_of_mmdet_and_mmseg_load_our_checkpoints(
    kind: str, trained: Models, tmp_path: Path
) -> None:
    """In a process that imports nothing of mmse itself: the config names the backbone."""
    model = trained(kind)
    image = str(sorted(model.images.iterdir())[0])
    [ours] = mmse.load_model(str(model.config), str(model.checkpoint), device='cpu')(image)
    out = tmp_path / 'theirs.pt'
    lines = 'import sys, torch\nconfig, checkpoint, image, out = sys.argv[1:]\n' + APIS[kind]
    command = [sys.executable, '-c', lines, str(model.config), str(model.checkpoint), image]
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    mine = ours.pred_instances.bboxes if kind == 'det' else ours.pred_sem_seg.data
    assert torch.equal(torch.load(out), mine)
