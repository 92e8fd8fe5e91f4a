"""Percentiles: one value range for all images of a run, compared with NumPy's."""

import numpy as np
from conftest import read
from drawn_run import draw

from mmdet_featviz.runs.maps_file import dump_snapshot, load_snapshot
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot


def test_normalize_run_uses_percentiles_over_all_images(pool_model, tmp_path):
    visualizer = draw(pool_model, tmp_path, save=('heatmap',), normalize='run', colormap='gray', count=4)
    assert visualizer.summary().startswith('12 pictures and 4 files of maps of 4 images in')
    run = Run(str(tmp_path / 'run'))
    for level in range(3):
        all_values, snapshots = [], [load_snapshot(path) for path in run.paths]
        for snapshot in snapshots:
            values, stride = snapshot.levels[level].values, snapshot.levels[level].stride
            all_values.append(Grid(values.shape, stride, snapshot.placement).visible(values).ravel())
        low, high = np.percentile(np.concatenate(all_values), (0.5, 99.5), method='nearest')
        for snapshot in snapshots:
            values, stride = snapshot.levels[level].values, snapshot.levels[level].stride
            unit = (values - low) / (high - low)
            expected = np.clip(Grid(values.shape, stride, snapshot.placement).heatmap(unit), 0, 1) * 255
            found = read(tmp_path / 'run' / snapshot.key / f'backbone_{level}.heatmap.png')[..., 0]
            assert np.abs(found - expected).max() <= 1.5
    entries = run.entries.values()
    assert len(entries) == 12
    assert all(any(file.endswith('.heatmap.png') for file in entry['files']) for entry in entries)


def test_percentiles_of_known_values(tmp_path):
    """Two images with outliers, which set minimum and maximum but not the percentiles."""
    rng, paths, everything = np.random.default_rng(0), [], []
    for number in range(2):
        values = rng.normal(number, 3, (50, 80)).astype(np.float32)
        values[0, 0], values[1, 1] = 1e4 * (1 - 2 * number), np.nan
        snapshot = Snapshot('a', None, 0, identity_placement((50, 80), (50, 80)), [Level('neck', 0, 4, (1, 1), values)])
        paths.append(tmp_path / f'{number}.npz')
        paths[-1].write_bytes(dump_snapshot(snapshot))
        everything.append(values[np.isfinite(values)])
    found = run_ranges([str(path) for path in paths], 'center')
    bin_width = 2e4 / 65536
    np.testing.assert_allclose(
        found['neck_0'], np.percentile(np.concatenate(everything), (0.5, 99.5)), atol=2 * bin_width
    )


def test_the_mean_of_passes_does_not_outweigh_them(tmp_path):
    """It has a value for each of 80 x 50 pixels, where a pass has 6 x 5 cells."""
    passes = [np.linspace(number, 10 + number, 30, dtype=np.float32).reshape(5, 6) for number in (0, 4)]
    mean = np.full((50, 80), 7, np.float32)
    snapshots = [
        Snapshot('a', None, number, identity_placement((40, 48), (40, 48)), [Level('neck', 0, 4, (8, 8), values)])
        for number, values in enumerate(passes)
    ]
    whole = identity_placement((50, 80), (50, 80))
    snapshots.append(Snapshot('a', None, 'mean', whole, [Level('neck', 0, 4, (1, 1), mean)]))
    paths = []
    for snapshot in snapshots:
        paths.append(str(tmp_path / snapshot.maps_file))
        (tmp_path / snapshot.maps_file).write_bytes(dump_snapshot(snapshot))
    low, high = run_ranges(paths, 'center')['neck_0']
    assert low < 0.1
    assert high > 13.9
