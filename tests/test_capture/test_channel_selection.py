import numpy as np
import pytest
import torch
from torch import nn

from mmdet_featviz.capture.channel_selection import DetailRecorder, parse_channel_choice, select_channels, top_channels
from mmdet_featviz.capture.reductions import get_reduction
from mmdet_featviz.capture.taps import Taps

MEANS = torch.tensor([0.5, -1.0, 3.0, float('nan'), 2.0])


@pytest.mark.parametrize(
    ('choice', 'expected'),
    [
        ('first 2', [0, 1]),
        ('first 9', [0, 1, 2, 3, 4]),
        ('top 3', [2, 4, 0]),
        ('all', [0, 1, 2, 3, 4]),
        ([4, 1, 4], [4, 1, 4]),
        (3, [3]),
    ],
)
def test_channel_choices(choice, expected):
    assert parse_channel_choice(choice)(MEANS).tolist() == expected


@pytest.mark.parametrize('bad', ['best 3', 'top', 'top 0', 'top -1', '', [], [1.5], [-1], [True], 'first x', 2.5, None])
def test_invalid_choice_is_an_error(bad):
    with pytest.raises(ValueError, match='channels='):
        parse_channel_choice(bad)


def test_missing_channel_is_an_error():
    choice, features = parse_channel_choice([0, 5]), torch.rand(5, 3, 4)
    with pytest.raises(ValueError, match='channel 5 does not exist: neck_2 has 5 channels, 0-4. Choose among these'):
        select_channels(features, choice, level='neck_2')
    assert select_channels(features, parse_channel_choice([0, 4])).indices.tolist() == [0, 4]


def test_missing_channel_names_the_level_and_ends_the_run_also_if_it_is_not_strict():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1))
    taps = Taps(model, ['0', '1'], get_reduction('max'), detail_recorder=DetailRecorder(parse_channel_choice([6])))
    with taps, torch.no_grad(), pytest.raises(ValueError, match='channel 6 does not exist: 1_0 has 5 channels, 0-4'):
        taps.begin(torch.rand(1, 3, 8, 8), [None])
        model(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_picked_channels_have_the_largest_means(dtype):
    features = torch.randn(7, 6, 9).to(dtype)
    picked = select_channels(features, parse_channel_choice('top 3'))
    means = features.double().numpy().mean((1, 2))
    assert picked.indices.tolist() == np.argsort(-means)[:3].tolist()
    np.testing.assert_array_equal(picked.maps, features.float().numpy()[picked.indices])
    np.testing.assert_allclose(picked.weights, means, rtol=1e-5, atol=1e-6)


def test_recorded_details_are_copies():
    """A later in-place ReLU changes the network's own tensor."""
    features = torch.randn(2, 3, 4, 5)
    before = features.clone().numpy()
    recorded = DetailRecorder(parse_channel_choice('all'), 2, raw=True).record(features)
    features.relu_()
    for image, details in zip(before, recorded):
        np.testing.assert_array_equal(details['raw'], image)
        np.testing.assert_array_equal(details['picked'].maps, image)
        np.testing.assert_array_equal(details['pooled'].maps, image[np.argsort(-image.mean((1, 2)))[:2]])


def test_top_channels_sorts_by_mean_and_puts_nan_last():
    assert top_channels(5, torch.tensor([1.0, float('nan'), 5.0, 1.0, -2.0])).tolist() == [2, 0, 3, 4, 1]
