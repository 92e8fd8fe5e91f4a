"""look(): arrays and figures of one image without a runner."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import FLIP_KEYS, keep_ratio_pipeline, noise, pool_detector, resnet_detector
from explained import narrow_retinanet
from mmdet.apis import DetInferencer, inference_detector
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import explain, look
from mmdet_featviz.visualization.images import ImageError


def detector(model):
    """A detector as init_detector builds it."""
    built = MODELS.build(model).eval()
    pipeline = [step for step in keep_ratio_pipeline((96, 64)) if 'Annotations' not in step['type']]
    built.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return built


@pytest.fixture
def image(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), noise(64, 96))
    return str(tmp_path / 'a.png')


def test_values_heatmap_and_overlay_of_an_image(image):
    pixels = cv2.imread(image)
    seen = look(detector(pool_detector((8, 16))), image, layers='backbone', alpha=0.25, colormap='gray')
    assert seen.names == ['backbone_0', 'backbone_1']
    blocks = pixels.astype(np.float64).mean(2).reshape(8, 8, 12, 8).mean((1, 3))
    np.testing.assert_allclose(seen.values('backbone_0'), blocks, rtol=1e-5)
    assert (seen.level('backbone_0').channels, seen.level('backbone_0').stride) == (2, (8, 8))
    heat = cv2.resize(blocks.astype(np.float32), (96, 64))
    np.testing.assert_allclose(seen.heatmap('backbone_0'), heat, rtol=1e-4)
    unit = (heat - blocks.min()) / (blocks.max() - blocks.min())
    expected = 0.75 * pixels[..., ::-1] + 0.25 * 255 * unit[..., None]
    assert np.abs(seen.overlay('backbone_0') - expected).max() < 1.3
    np.testing.assert_array_equal(seen.image, pixels[..., ::-1])
    assert repr(seen) == f'Look at {image}: backbone_0 (2, stride 8), backbone_1 (2, stride 16)'


def test_the_whole_feature_map_is_what_the_layer_outputs(image):
    model, outputs = detector(resnet_detector()), []
    model.neck.register_forward_hook(lambda module, args, output: outputs.append(output))
    seen = look(model, image, layers='neck', reduction='mean')
    for level in (0, 2):
        features = seen.features(f'neck_{level}')
        np.testing.assert_array_equal(features, outputs[0][level][0].numpy())
        np.testing.assert_allclose(seen.values(f'neck_{level}'), features.mean(0), atol=1e-6)
    with pytest.raises(KeyError, match="no level 'neck_9'"):
        seen.features('neck_9')
    scores = look(model, image, save='scores', classes=[0])
    with pytest.raises(ValueError, match='is the probability of .*, not a feature map'):
        scores.features(scores.names[0])


def test_similarity_is_the_cosine_to_the_cell_at_a_place(image):
    model = detector(resnet_detector())
    seen = look(model, image, layers='neck', align='center')
    features = seen.features('neck_0').astype(np.float64)  # stride 8, image 96 x 64 in an input of the same size
    for x, y, row, column in ((3.9, 4.1, 0, 0), (44, 20, 2, 5), (96, 64, 7, 11)):
        chosen = features[:, row, column]
        cosines = np.tensordot(chosen, features, 1) / np.linalg.norm(chosen) / np.linalg.norm(features, axis=0)
        expected = cv2.resize(cosines.astype(np.float32), (96, 64))
        similarity = seen.similarity('neck_0', x, y)
        np.testing.assert_allclose(similarity, expected, atol=1e-5)
        assert similarity[int(y) - 1, int(x) - 1] > 0.8 and similarity.min() >= -1
    with pytest.raises(ValueError, match=r'\(97, 3\) is outside the image, which has 96x64 pixels'):
        seen.similarity('neck_0', 97, 3)
    with pytest.raises(KeyError, match="no level 'neck_9'"):
        seen.similarity('neck_9', 3, 3)
    with pytest.raises(ValueError, match='embeddings are of the images of a run'):
        look(model, image, save='embeddings')


def test_several_images_and_detectors_are_looked_at_one_after_the_other(image, tmp_path):
    first, second = detector(pool_detector((8,))), detector(pool_detector((16,)))
    other = np.full((48, 40, 3), 90, np.uint8)
    looks = look([first, second], [image, other], layers='backbone')
    alone = [look(model, one, layers='backbone') for model in (first, second) for one in (image, other)]
    assert [one.level('backbone_0').stride for one in looks] == [(8, 8), (8, 8), (16, 16), (16, 16)]
    for one, expected in zip(looks, alone):
        np.testing.assert_array_equal(one.panel(), expected.panel())
    panel, row = looks.panel(), 0
    for one in alone:
        height, width = one.panel().shape[:2]
        np.testing.assert_array_equal(panel[row : row + height, :width], one.panel())
        assert (panel[row : row + height, width:] == 255).all()
        row += height
    assert row == len(panel)
    looks.save(tmp_path / 'looks.png')
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'looks.png'))[..., ::-1], panel)
    assert len(look(first, [image])) == 1
    with pytest.raises(ValueError, match='image is an empty list'):
        look(first, [])


def test_saved_files_are_the_panel_and_the_overlay(image, tmp_path):
    seen = look(detector(pool_detector((8, 16))), image)
    seen.save(tmp_path / 'new' / 'panel.png')
    seen.save(tmp_path / 'level.png', 'backbone_1')
    for name, expected in (('new/panel.png', seen.panel()), ('level.png', seen.overlay('backbone_1'))):
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / name))[..., ::-1], expected)
    with pytest.raises(ValueError, match=r"must end with one of .jpg, .png, .webp, but is 'panel.pdf'"):
        seen.save('panel.pdf')
    with pytest.raises(KeyError, match="no level 'neck_0'"):
        seen.save(tmp_path / 'level.png', 'neck_0')


def test_boxes_are_the_predictions(image):
    model = detector(pool_detector((8, 16)))
    seen, plain = look(model, image), inference_detector(model, image).pred_instances
    order = plain.scores.argsort()
    np.testing.assert_array_equal(seen.boxes.corners, plain.bboxes[order].numpy())
    np.testing.assert_array_equal(seen.boxes.scores, plain.scores[order].numpy())


def test_an_array_is_rebuilt_and_looks_the_same(image):
    model = detector(pool_detector((8, 16)))
    path, array = (look(model, source, layers='backbone') for source in (image, cv2.imread(image)))
    np.testing.assert_array_equal(path.overlay('backbone_1'), array.overlay('backbone_1'))


def test_a_notebook_shows_the_panel(image):
    seen = look(detector(pool_detector((8, 16))), image, boxes='pred', score_thr=0)
    shown = cv2.imdecode(np.frombuffer(seen._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown[..., ::-1], seen.panel())


def test_wrong_names_are_errors(image):
    model = detector(pool_detector((8, 16)))
    with pytest.raises(ValueError, match="unknown layer 'nekc'"):
        look(model, image, layers='nekc')
    with pytest.raises(KeyError, match="no level 'backbone_7': choose from backbone_0, backbone_1"):
        look(model, image).values('backbone_7')
    with pytest.raises(TypeError, match="unknown argument 'colourmap': did you mean 'colormap'"):
        look(model, image, colourmap='jet')


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((10, 10), np.uint8), r'has the shape \(10, 10\)'),
        (np.zeros((0, 10, 3), np.uint8), r'has the shape \(0, 10, 3\)'),
        (np.zeros((10, 10, 3), np.int64), 'OpenCV scales images of the types uint8, .* not int64: convert it'),
        (np.zeros((10, 10, 3), np.float16), 'not float16'),
        (np.zeros((10, 10, 3), bool), 'not bool'),
        (np.zeros((9000, 1, 3), np.uint8), 'the test pipeline of the detector cannot use an image of 9000 x 1 pixels'),
        (None, 'not None, which cv2.imread returns on failure'),
        (torch.zeros(2, 2, 3), 'not a Tensor'),
    ],
)
def test_invalid_images_are_errors(image, message):
    with pytest.raises(ValueError, match=message):
        look(detector(pool_detector((8, 16))), image)


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / 'text.jpg').write_text('text')
    for path in (tmp_path / 'text.jpg', tmp_path / 'none.jpg', tmp_path):
        with pytest.raises(ImageError, match=f'{path} cannot be read'):
            look(detector(pool_detector((8,))), path)


def test_a_look_during_a_training_shows_and_changes_no_training(image):
    """Batch norms would use the mean of one image, and remember it."""
    config = resnet_detector()
    config['backbone']['norm_eval'] = False
    model = detector(config)
    before = look(model, image).values('backbone_0')
    model.train()
    weights = copy.deepcopy(model.state_dict())
    np.testing.assert_array_equal(look(model, image).values('backbone_0'), before)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_look_leaves_no_hooks_and_a_drawing_detector_writes_no_files(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = detector(dict(resnet_detector('SingleStageDetectorHp'), featviz=dict(out_dir='out')))
    look(model, image)
    assert not any(module._forward_hooks for module in model.modules())
    assert not (tmp_path / 'out').exists()
    assert model.featviz.stages == ('test',)


def test_arrays_and_paths_in_turn(image):
    model = detector(pool_detector((8,)))
    for source in (cv2.imread(image), image, Path(image), cv2.imread(image)):
        np.testing.assert_allclose(look(model, source).values('backbone_0').mean(), cv2.imread(image).mean(), rtol=1e-4)
    assert model.cfg.test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'


def test_a_function_as_reduction(image):
    model = detector(pool_detector((8,)))
    difference = look(model, image, reduction=lambda features: features[:, 0] - features[:, 1])
    np.testing.assert_allclose(difference.values('backbone_0'), 1, rtol=1e-4)
    with pytest.raises(ValueError, match='must be'):
        look(model, image, reduction=lambda features: features.mean())


def test_an_inferencer_in_place_of_a_detector(image):
    model = detector(pool_detector((8,)))
    inferencer = DetInferencer.__new__(DetInferencer)
    inferencer.model = model
    np.testing.assert_array_equal(look(inferencer, image).values('backbone_0'), look(model, image).values('backbone_0'))


@pytest.mark.parametrize('model', ['config.py', Config(), MODELS.build(pool_detector((8,)))])
def test_what_is_no_detector_of_init_detector(image, model):
    with pytest.raises(TypeError, match='look\\(\\) needs a detector from mmdet.apis.init_detector'):
        look(model, image)


def test_an_image_from_zero_to_one_is_not_taken_for_a_black_one():
    noisy = noise(64, 96) / 255
    with pytest.raises(ValueError, match='image must have values from 0 to 255, as OpenCV reads it'):
        look(detector(pool_detector((8,))), noisy)
    look(detector(pool_detector((8,))), 255 * noisy)


def test_options_without_effect(image):
    model = detector(pool_detector((8,)))
    with pytest.raises(TypeError, match='writes no files, so out_dir, max_images would have no effect'):
        look(model, image, out_dir='out', max_images=3)
    with pytest.raises(TypeError, match="look\\(\\) knows no ground truth, so boxes='gt' would have no effect"):
        look(model, image, boxes='gt')
    with pytest.raises(ValueError, match="normalize='run' needs a run of several images"):
        look(model, image, normalize='run')
    with pytest.raises(TypeError, match="channels would have no effect: set save='channels'"):
        look(model, image, channels='first 4')
    assert len(look(model, image, save='channels', channels='first 1').level('backbone_0').picked.maps) == 1
    with pytest.raises(TypeError, match="attention_channels would have no effect: set save='attention'"):
        look(model, image, attention_channels=4)
    with pytest.raises(TypeError, match='writes no files: save=maps, box_features would have no effect'):
        look(model, image, save=('panel', 'box_features', 'maps'))
    with pytest.raises(TypeError, match="score_thr, classes would have no effect: set boxes='pred', or save='scores'"):
        look(model, image, score_thr=0.5, classes=[0])
    with pytest.raises(TypeError, match="percentiles would have no effect: set normalize='percentile'"):
        look(model, image, percentiles=(5, 95))


def test_a_look_explains_detections_in_its_colors(image):
    model = narrow_retinanet()
    (one,) = look(model, image, colormap='bone', alpha=0.7).explain('layercam', 'top 1', of='both')
    (expected,) = explain(model, image, 'layercam', 'top 1', of='both', colormap='bone', alpha=0.7)
    np.testing.assert_array_equal(one.overlay(), expected.overlay())
    (other,) = look(model, image, colormap='bone').explain(targets='top 1', colormap='jet')
    assert (other.style.colormap, other.style.normalize, other.method) == ('jet', 'max', 'odam')


@pytest.mark.parametrize('steps', [('Pad', 'RandomFlip'), ('RandomFlip', 'Pad')])
def test_an_array_decides_whether_the_flip_came_after_the_padding(tmp_path, steps):
    """Its margins are as even as the padding, so that the network's input alone does not show it."""
    pixels = cv2.copyMakeBorder(noise(40, 50), 12, 12, 20, 26, cv2.BORDER_CONSTANT)
    options = dict(Pad=dict(size=(128, 64)), RandomFlip=dict(prob=1.0))
    model = detector(pool_detector((8,)))
    pipeline = [dict(type=f'mmdet.{name}', **options[name]) for name in steps]
    model.cfg.test_dataloader.dataset.pipeline[2:2] = pipeline
    model.cfg.test_dataloader.dataset.pipeline[-1].meta_keys += FLIP_KEYS
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    of_file, of_array = (look(model, source) for source in (str(tmp_path / 'a.png'), pixels))
    assert of_array.snapshot.placement.matrix[0, 2] == (128 if steps[0] == 'Pad' else 96)
    np.testing.assert_array_equal(of_array.heatmap('backbone_0'), of_file.heatmap('backbone_0'))
    for source in (str(tmp_path / 'a.png'), pixels):
        (explained,) = explain(model, source, 'eigencam', targets='top 1', layers='backbone')
        np.testing.assert_array_equal(explained.snapshot.placement.matrix, of_file.snapshot.placement.matrix)
