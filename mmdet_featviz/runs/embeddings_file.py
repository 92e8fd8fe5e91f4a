"""Embeddings file: the first principal components of the cells of an image in eight bits, as embeddings.npz.

It is the snapshot of the image again, with the lengths of the cells' vectors as maps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmdet_featviz.runs.component_fit import RunFit
from mmdet_featviz.runs.maps_file import dump_snapshot, errors_of, parse_maps, require
from mmdet_featviz.structures.embedding import quantize
from mmdet_featviz.structures.principal_components import PrincipalComponents
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.utils.regular_files import read_file


def dump_embeddings(snapshot: Snapshot, fit: RunFit) -> bytes | None:
    """Return the content of an ``.npz`` file for :func:`load_embeddings`; None if no level has features.

    For each level it has an array (rows, columns) float32 under the level's name, the length of the vector of the first
    16 components of each cell (NaN if the cell is not finite), and ``neck_0.embedding``, these vectors as
    :func:`mmdet_featviz.structures.embedding.quantize` returns them; ``meta`` has the name of the fit as ``fit``.

    Args:
        snapshot: The image, with its compact features. Score maps and the mean of passes have none.
        fit: Principal components of the run.
    """
    found = [level for level in snapshot.levels if level.compact is not None and level.name in fit.components]
    if not found:
        return None
    levels = [_embed(level, fit.components[level.name]) for level in found]
    return dump_snapshot(replace(snapshot, levels=levels, attention=(), boxes=None, ignored=None), fit=fit.name)


def load_embeddings(path: str) -> tuple[Snapshot, str]:
    """Load the embeddings of an image, and the name of the fit that they can be compared in.

    Args:
        path: Path or URL of a file of :func:`dump_embeddings`.

    Raises:
        MapsError: If the file cannot be read, or holds no embeddings in this package's format.
    """
    with errors_of(path):
        snapshot, meta = parse_maps(read_file(path), path)
        require(isinstance(meta['fit'], str), f'its fit is {meta["fit"]!r}')
        require(all(level.embedding is not None for level in snapshot.levels), 'a level has no embedding')
    return snapshot, meta['fit']


def _embed(level: Level, components: PrincipalComponents) -> Level:
    scores = components.significant_scores(level.compact)
    lengths = np.linalg.norm(scores, axis=0).astype(np.float32)
    return replace(level, values=lengths, embedding=quantize(scores), picked=None, pooled=None, raw=None, compact=None)
