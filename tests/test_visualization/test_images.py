import contextlib
import io
import struct

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


def oriented(pixels, ending, orientation, **options):
    """An image file with an EXIF orientation, as Pillow writes it."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(pixels[..., ::-1]).save(buffer, ending, exif=exif, **options)
    return buffer.getvalue()


def turned_by(pixels, orientation):
    """What the orientation says an upright image is."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('turned', [True, False])
@pytest.mark.parametrize('ending', ['jpeg', 'png', 'webp', 'tiff'])
def test_exif_orientation_is_used_as_in_the_pipeline(tmp_path, ending, orientation, turned):
    """Whatever OpenCV does with the format: what the network saw decides, and else the size."""
    options = dict(jpeg=dict(quality=100, subsampling=0), webp=dict(lossless=True)).get(ending, {})
    (tmp_path / 'a').write_bytes(oriented(IMAGE, ending, orientation, **options))
    expected = turned_by(IMAGE, orientation) if turned else IMAGE
    blurred = cv2.GaussianBlur(np.ascontiguousarray(expected), (0, 0), 2)
    image = read_image(str(tmp_path / 'a'), expected.shape[:2], seen=lambda: blurred)
    assert np.abs(image.astype(int) - expected).mean() < 4
    decoded = cv2.imdecode(np.fromfile(tmp_path / 'a', np.uint8), cv2.IMREAD_COLOR)
    opencv_turns = decoded.shape == turned_by(IMAGE, orientation).shape
    if orientation > 4 and opencv_turns:  # else, as with WebP before OpenCV 5, the size leaves two ways to turn
        unseen = read_image(str(tmp_path / 'a'), expected.shape[:2])
        assert np.abs(unseen.astype(int) - expected).mean() < 4


def test_big_endian_exif_and_a_block_after_other_tags(tmp_path):
    tags = b''.join(struct.pack('>HHIHxx', *tag) for tag in [(0x010F, 2, 1, 65), (ORIENTATION_TAG, 3, 1, 3)])
    block = b'MM\0*' + struct.pack('>IH', 8, 2) + tags + bytes(4)
    jpeg = cv2.imencode('.jpg', IMAGE, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    segment = b'Exif\0\0' + block
    with_exif = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:]
    (tmp_path / 'a.jpg').write_bytes(with_exif)
    for expected in (IMAGE, IMAGE[::-1, ::-1]):
        image = read_image(str(tmp_path / 'a.jpg'), IMAGE.shape[:2], seen=lambda image=expected: image)
        assert np.abs(image.astype(int) - expected).mean() < 4
    for length in range(len(segment)):  # an EXIF block that ends early is none
        (tmp_path / 'a.jpg').write_bytes(with_exif[: 6 + length] + jpeg[2:])
        with contextlib.suppress(ImageError):  # OpenCV may refuse it
            read_image(str(tmp_path / 'a.jpg'), IMAGE.shape[:2])


def test_the_number_of_pixels_that_pillow_accepts_is_no_limit(tmp_path, monkeypatch):
    """Pillow refuses 179 megapixels with an error of its own kind."""
    (tmp_path / 'a.jpg').write_bytes(oriented(IMAGE, 'jpeg', 3, quality=100))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / 'a.jpg')
    image = read_image(str(tmp_path / 'a.jpg'), (61, 83), seen=lambda: IMAGE)
    assert np.abs(image.astype(int) - IMAGE).mean() < 4


def test_orientation_is_decided_by_what_the_pipeline_kept(tmp_path):
    """Here the network saw only a dark corner; all else is black in the rebuilt image, as if it were darker still."""
    bright = np.full((60, 80, 3), 250, np.uint8)
    bright[:20, :30] = IMAGE[:20, :30] // 4
    (tmp_path / 'a.png').write_bytes(oriented(bright, 'png', 3))
    for expected in (bright, bright[::-1, ::-1]):
        seen = np.zeros_like(bright)
        seen[:20, :30] = expected[:20, :30]
        image = read_image(str(tmp_path / 'a.png'), (60, 80), seen=lambda seen=seen: seen)
        np.testing.assert_array_equal(image, expected)


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


@pytest.mark.parametrize('turn', [0.0, 1e-9], ids=['crop', 'homography'])
def test_a_rebuilt_image_is_black_where_the_pipeline_cropped_it(turn):
    """The network saw rows 10 to 49 and columns 20 to 69 of 61 x 83 pixels."""
    inputs = torch.from_numpy(IMAGE[10:50, 20:70].transpose(2, 0, 1).copy()).float()
    matrix = np.array([[1, turn, -20], [0, 1, -10], [0, 0, 1]])
    rebuilt = rebuild_image(inputs, None, Placement(matrix, (61, 83), (40, 50)))
    expected = np.zeros_like(IMAGE)
    expected[10:50, 20:70] = IMAGE[10:50, 20:70]
    np.testing.assert_array_equal(rebuilt, expected)


def test_an_image_is_rebuilt_from_the_input_of_a_teacher_and_its_student():
    config = resnet_detector()['data_preprocessor']
    preprocessor = MODELS.build(dict(type='MultiBranchDataPreprocessor', data_preprocessor=config))
    inputs = preprocessor.data_preprocessor(
        dict(inputs=[torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())], data_samples=None), False
    )['inputs'][0]
    rebuilt = rebuild_image(inputs, preprocessor, identity_placement((61, 83), (64, 96)))
    np.testing.assert_array_equal(rebuilt, IMAGE)
