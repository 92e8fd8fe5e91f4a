"""Box features file: saves the features of an image's boxes as box_features.npz, and loads them again."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdet_featviz.runs.manifest import image_facts
from mmdet_featviz.runs.maps_file import FORMAT, cast, check_boxes, check_floats, errors_of, load_arrays, require
from mmdet_featviz.structures.box_features import BoxFeatures
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.regular_files import read_file


def box_features_name(snapshot: Snapshot) -> str:
    """Path of the file in the folder of the run."""
    return f'{snapshot.key}/box_features{snapshot.suffix}.npz'


def dump_box_features(features: BoxFeatures, dtype: str) -> bytes:
    """Return the content of an ``.npz`` file.

    Arrays in it: the vectors (N, C) of each level under its name; ``boxes`` (N, 6) as in saved maps; ``numbers`` (N,);
    and ``meta``, a JSON string with ``format`` and the names of the ``levels``.

    Args:
        features: The features.
        dtype: ``float32`` or ``float16`` for the vectors.
    """
    boxes = features.boxes
    rows = np.concatenate([boxes.corners, boxes.labels[:, None], boxes.scores[:, None]], axis=1)
    meta = np.array(json.dumps(dict(format=FORMAT, levels=list(features.vectors)), ensure_ascii=False))
    vectors = {name: cast(values, dtype) for name, values in features.vectors.items()}
    buffer = io.BytesIO()
    np.savez(buffer, meta=meta, boxes=rows, numbers=features.numbers, **vectors)
    return buffer.getvalue()


def load_box_features(path: str) -> BoxFeatures:
    """Load a file of :func:`dump_box_features`, which may be anybody's.

    Args:
        path: Path or URL of the file.

    Raises:
        MapsError: If it cannot be read, or its arrays do not fit each other.
    """
    with errors_of(path, 'box features'):
        arrays = load_arrays(read_file(path))
        levels = json.loads(str(arrays['meta']))['levels']
        boxes, numbers = check_boxes(arrays['boxes']), arrays['numbers']
        are_whole = numbers.dtype.kind == 'i' and numbers.shape == (len(boxes),) and (numbers >= 0).all()
        require(are_whole, f'its numbers are {numbers.dtype} {numbers.shape}')
        vectors = {name: check_floats(arrays[name], f'vectors of {name}', (len(boxes), None)) for name in levels}
        require(all(values.shape[1] for values in vectors.values()), 'its vectors have no channels')
    return BoxFeatures(boxes, numbers, vectors)


@dataclass(frozen=True)
class SavedFeatures:
    """A file of box features in a run.

    Attributes:
        path: Path or URL of the file.
        image: Path of the image; None for an array.
        key: Image key.
        folder: First part of the key that names an epoch, such as ``epoch_3``; empty in a test.
        boxes: Number of boxes.
    """

    path: str
    image: str | None
    key: str
    folder: str
    boxes: int


def box_features_entry(snapshot: Snapshot, features: BoxFeatures) -> dict[str, Any]:
    """Return the manifest entry of an image's box features."""
    return {
        **image_facts(snapshot),
        'pass': snapshot.augmentation,
        'boxes': len(features.boxes),
        'vectors': {name: values.shape[1] for name, values in features.vectors.items()},
        'files': [box_features_name(snapshot)],
    }
