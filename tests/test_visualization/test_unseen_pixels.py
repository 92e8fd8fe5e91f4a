import numpy as np
import pytest
from conftest import noise

from mmdet_featviz.visualization.unseen_pixels import hatch_unseen, unseen_caption

SIZE = (90, 120)
SEEN = np.zeros(SIZE, bool)
SEEN[20:, :70] = True


@pytest.mark.parametrize('image', [None, noise(*SIZE), np.zeros((*SIZE, 3), np.uint8)])
def test_unseen_pixels_show_the_image_between_lines(image):
    heat = np.full((*SIZE, 3), 77, np.uint8)
    below = np.full((*SIZE, 3), 255, np.uint8) if image is None else image
    hatched = hatch_unseen(heat.copy(), SEEN, image)
    np.testing.assert_array_equal(hatched[SEEN], heat[SEEN])
    differs = (hatched != below).any(2)[~SEEN]
    assert 0.1 < differs.mean() < 0.4
    without_lines = np.where(SEEN[..., None], heat, below)
    np.testing.assert_array_equal(hatch_unseen(heat.copy(), SEEN, image, alpha=0), without_lines)


def test_lines_are_as_dense_in_large_pictures_as_in_small_ones():
    shares = []
    for size in ((90, 120), (900, 1200), (3600, 4800)):
        hatched = hatch_unseen(np.zeros((*size, 3), np.uint8), np.zeros(size, bool), None)
        shares.append((hatched != 255).any(2).mean())
    assert max(shares) < 1.6 * min(shares)


def test_nothing_changes_where_all_was_seen():
    heat = noise(*SIZE)
    np.testing.assert_array_equal(hatch_unseen(heat.copy(), np.ones(SIZE, bool), None), heat)
    assert unseen_caption(np.ones(SIZE, bool)) == []
    assert unseen_caption(SEEN) == ['hatched: not seen by the network']
