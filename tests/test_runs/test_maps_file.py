"""Maps file: a snapshot is loaded as it was saved."""

import numpy as np
import pytest

from mmdet_featviz.runs.maps_file import dump_snapshot, load_snapshot
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot


def test_half_precision_clips_large_values(tmp_path):
    values = np.array([[0.1, 1e6], [-1e6, np.nan]], np.float32)
    snapshot = Snapshot('a', None, 0, identity_placement((2, 2), (2, 2)), [Level('neck', 0, 4, (1, 1), values)])
    (tmp_path / 'maps.npz').write_bytes(dump_snapshot(snapshot, 'float16'))
    found = load_snapshot(str(tmp_path / 'maps.npz')).levels[0].values
    np.testing.assert_allclose(found, [[0.1, 65504], [-65504, np.nan]], rtol=1e-3)


def test_a_file_without_maps_is_an_error(tmp_path):
    (tmp_path / 'maps.npz').write_bytes(b'PK no')
    with pytest.raises(ValueError, match=r'maps.npz holds no maps of this package'):
        load_snapshot(str(tmp_path / 'maps.npz'))
