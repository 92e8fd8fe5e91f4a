import io

import cv2
import numpy as np
import pytest
import torch
from conftest import noise, resnet_detector
from mmdet.registry import MODELS
from PIL import Image

from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.visualization.images import ORIENTATION_TAG, ImageError, read_image, rebuild_image

IMAGE = noise(61, 83)


def save(path, pixels):
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return str(path)


@pytest.mark.parametrize('name', ['猫.png', 'ünï çödé.png', '🐈.png', 'a b#%.png'])
def test_names_in_any_language(tmp_path, name):
    np.testing.assert_array_equal(read_image(save(tmp_path / name, IMAGE), (61, 83)), IMAGE)


def test_gray_alpha_and_16_bit_images_become_8_bit_bgr(tmp_path):
    gray = IMAGE[..., 0]
    for name, pixels, expected in [
        ('gray', gray, np.repeat(gray[..., None], 3, 2)),
        ('alpha', np.dstack([IMAGE, 255 - gray]), IMAGE),
        ('16 bits', IMAGE.astype(np.uint16) * 257, IMAGE),
        ('gray of 12 bits in 16', np.round(gray.astype(np.uint16) * (4095 / 255)).astype(np.uint16), None),
    ]:
        image = read_image(save(tmp_path / f'{name}.png', pixels), (61, 83))
        assert image.dtype == np.uint8
        expected = np.repeat(gray[..., None], 3, 2) if expected is None else expected
        assert np.abs(image.astype(int) - expected).max() <= 1, name


def test_float_tiff(tmp_path):
    path = tmp_path / 'a.tiff'
    Image.fromarray(IMAGE[..., 0].astype(np.float32) / IMAGE[..., 0].max() * 3).save(path)
    image = read_image(str(path), (61, 83))
    expected = IMAGE[..., 0].astype(float) / IMAGE[..., 0].max() * 255
    assert np.abs(image[..., 0] - expected).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('turned', [True, False])
def test_exif_orientation_is_used_as_in_the_pipeline(tmp_path, orientation, turned):
    """Rotated images are recognized by their size; upside-down and mirrored ones only by what the network saw."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    buffer = io.BytesIO()
    Image.fromarray(IMAGE[..., ::-1]).save(buffer, 'jpeg', exif=exif, quality=100, subsampling=0)
    path = tmp_path / 'a.jpg'
    path.write_bytes(buffer.getvalue())
    transforms = {
        1: IMAGE,
        2: IMAGE[:, ::-1],
        3: IMAGE[::-1, ::-1],
        4: IMAGE[::-1],
        5: IMAGE.transpose(1, 0, 2),
        6: IMAGE[::-1].transpose(1, 0, 2),
        7: IMAGE[::-1, ::-1].transpose(1, 0, 2),
        8: IMAGE[:, ::-1].transpose(1, 0, 2),
    }
    expected = transforms[orientation] if turned else IMAGE
    blurred = cv2.GaussianBlur(np.ascontiguousarray(expected), (0, 0), 2)
    image = read_image(str(path), expected.shape[:2], seen=lambda: blurred)
    assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, r'cannot be read \(FileNotFoundError'),
        (b'', 'cannot be decoded: the file is corrupt or not an image'),
        (b'not an image', 'cannot be decoded: the file is corrupt or not an image'),
    ],
)
def test_missing_and_corrupt_images_have_different_messages(tmp_path, content, message):
    path = tmp_path / 'a.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(str(path), (10, 10))


def test_image_of_another_size_than_in_the_pipeline(tmp_path):
    with pytest.raises(ImageError, match='has 83x61 pixels, but in the pipeline it had 70x60'):
        read_image(save(tmp_path / 'a.png', IMAGE), (60, 70))


def test_file_backends_are_used(tmp_path):
    save(tmp_path / 'a.png', IMAGE)
    backend_args = dict(backend='local', path_mapping=None)
    with pytest.raises(ImageError, match='TypeError'):  # the argument reached the local backend, which does not have it
        read_image(str(tmp_path / 'a.png'), (61, 83), backend_args)
    np.testing.assert_array_equal(read_image(str(tmp_path / 'a.png'), (61, 83), dict(backend='local')), IMAGE)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_rebuilt_image_undoes_normalization_channel_order_and_padding(bgr_to_rgb):
    config = resnet_detector()['data_preprocessor']
    preprocessor = MODELS.build({**config, 'bgr_to_rgb': bgr_to_rgb})
    tensor = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())
    inputs = preprocessor(dict(inputs=[tensor], data_samples=None), False)['inputs'][0]
    assert inputs.shape[1:] == (64, 96)
    rebuilt = rebuild_image(inputs, preprocessor, identity_placement((61, 83), (64, 96)))
    np.testing.assert_array_equal(rebuilt, IMAGE)


def test_rebuilt_image_is_flipped_and_scaled_back():
    small = cv2.resize(IMAGE, (42, 31), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(small[:, ::-1].transpose(2, 0, 1).copy()).float()
    matrix = np.array([[-42 / 83, 0, 42], [0, 31 / 61, 0], [0, 0, 1]])
    rebuilt = rebuild_image(image, None, Placement(matrix, (61, 83), (31, 42)))
    assert np.abs(rebuilt.astype(int) - IMAGE).mean() < 4  # only what the scaling lost
    assert np.abs(rebuilt[:, ::-1].astype(int) - IMAGE).mean() > 20
