"""A saved run with embeddings of known features, for similarity in Python and in the browser."""

import numpy as np
import torch
from report_pages import PLACEMENTS, make_snapshot, random_values, write_run

from mmdet_featviz.capture.feature_compression import compress_features
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import Level, Snapshot

CHANNELS = 20  # more than the 16 components, and few enough that none are lost


class EmbeddedRun:
    """A run of five images with one level of stride 8, each image placed in another way.

    Attributes:
        run: The run.
        grids: Grid of each image.
    """

    def __init__(self, folder):
        self._features, self.grids, snapshots = [], [], []
        for number, placement in enumerate(PLACEMENTS.values()):
            rows, columns = (side // 8 for side in placement.input_size)
            planes = [random_values(rows, columns, number * CHANNELS + channel) for channel in range(CHANNELS)]
            features = np.stack([plane * 0.9**channel for channel, plane in enumerate(planes)])
            features[2, 1, 2] = np.nan
            compact = compress_features(torch.from_numpy(features))
            level = Level('neck', 0, CHANNELS, (8.0, 8.0), features.max(0), compact=compact)
            one = make_snapshot(f'street/{number}', folder / f'{number}.png', number, [level])
            snapshots.append(Snapshot(**{**vars(one), 'placement': placement}))
            self._features.append(features.astype(np.float64))
            self.grids.append(Grid(level.values.shape, level.stride, placement))
        self.run = write_run(folder / 'run', snapshots, save=('heatmap', 'embeddings'), align='center')

    def components(self):
        """The first 16 components of each image in float64, by NumPy's singular value decomposition of all cells."""
        chosen = [
            features[:, grid.covers_image() & np.isfinite(features).all(0)].T
            for features, grid in zip(self._features, self.grids)
        ]
        cells = np.concatenate(chosen)
        axes = np.linalg.svd(cells - cells.mean(0), full_matrices=False)[2][:16]
        return [np.tensordot(axes, features - cells.mean(0)[:, None, None], 1) for features in self._features]
