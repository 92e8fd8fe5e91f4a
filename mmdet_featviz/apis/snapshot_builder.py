"""Snapshot builder: turns the passes over a batch into snapshots of each image, one per pass and their mean."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.runs.compact_table import CompactTable
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.structures.boxes import collect_boxes, ignored_boxes
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import Placement, identity_placement, placement_from_metas
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.visualization.images import match_with_image, read_image, rebuild_image
from mmdet_featviz.visualization.value_ranges import find_visible_range, finite_heat


@dataclass(frozen=True)
class ImageSource:
    """Where the images of one stage come from.

    Attributes:
        keys: Gives each image its key.
        backend_args: Arguments of the file backend that reads the images.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set.
        array: The image itself, (H, W, 3), BGR, if it was given as an array.
    """

    keys: ImageKeys
    backend_args: dict | None
    dataset_meta: dict | None
    array: np.ndarray | None = None


class SnapshotBuilder:
    """Builds the snapshots of images, and numbers the passes over each image.

    Args:
        align: Where the value of a cell sits, as in :class:`mmdet_featviz.Style`; for the mean of passes.
        average_passes: Whether to add the mean of all passes.

    Attributes:
        decoded: Images that need not be read again, by path; as :func:`read_image` would return them.
    """

    def __init__(self, align: str, average_passes: bool = False) -> None:
        self.align = align
        self.average_passes = average_passes
        self.decoded: Mapping[str, np.ndarray] = {}
        self._pass_counts = CompactTable()  # image key: number of passes, or of predictions of a detector

    def begin(self) -> None:
        """Begin a test or validation: the passes over each image are numbered from 0 again."""
        self._pass_counts = CompactTable()

    def build(
        self,
        model: nn.Module,
        passes: Sequence[Pass],
        index: int,
        source: ImageSource,
        result: Any = None,
        folder: str = '',
        stage: str = 'test',
        position: int | None = None,
        pass_number: int | None = None,
    ) -> list[Snapshot]:
        """Build the snapshots of one image of a batch: one per pass and, with `average_passes`, their mean.

        Args:
            model: The detector; the mean and std of its preprocessor are used to rebuild an image without a file.
            passes: The passes over the batch.
            index: Index of the image in the batch.
            source: Where the image comes from.
            result: Data sample with the predictions for the image.
            folder: Subfolder of the run's folder.
            stage: ``train``, ``val`` or ``test``.
            position: Position of the image in the order of the data set, if known.
            pass_number: Number of the pass in its prediction, for a detector that draws by itself. A second prediction
                on the image is drawn into a folder of its own, such as ``test_2``. None counts the passes.
        """
        sample = passes[0].samples[index]
        path = image_path(sample.metainfo)
        key = posixpath.join(folder, source.keys.key_of(path, position))
        data_sample = source.keys.sample_of(path, position)
        if pass_number is None:
            first = self._first_pass(key, data_sample, len(passes))
        else:
            number, samples = data_sample or (0, 1)
            first = number + pass_number * samples
            again = self._prediction_folder(f'{key}//{number}', folder, pass_number)
            key, folder = posixpath.join(again, key[len(folder) :].lstrip('/')), again
        snapshots = [
            self._build_one(model, pass_, index, key, number, folder, source, stage == 'train', position)
            for number, pass_ in enumerate(passes, first)
        ]
        boxes = collect_boxes(sample, result, None if passes[0].is_augmented else snapshots[0].placement)
        # All passes share one image, which is read once.
        image = lru_cache(maxsize=None)(snapshots[0].image)
        snapshots = [replace(snapshot, boxes=boxes, image=image) for snapshot in snapshots]
        if self.average_passes and len(passes) > 1:
            mean = average_snapshots(snapshots, self.align)
            snapshots.append(replace(mean, augmentation=f'mean_{first}') if first else mean)
        return snapshots

    def _first_pass(self, key: str, sample: tuple[int, int] | None, passes: int) -> int:
        """Return the number of the first of some passes over an image.

        Passes are counted here, unless the image has several samples in the data set: these may be on several ranks, so
        the number of each follows from its place among the samples.
        """
        if sample is None:
            first = self._pass_counts.get(key)
            self._pass_counts.add(key, passes)
            return first
        number, _ = sample
        return number * passes

    def _prediction_folder(self, name: str, folder: str, pass_number: int) -> str:
        """Return the subfolder for a prediction: `folder` for the first one on an image, else a numbered one."""
        if not pass_number:
            self._pass_counts.add(name)
        return numbered_folder(folder, self._pass_counts.get(name))

    def _build_one(
        self,
        model: nn.Module,
        pass_: Pass,
        index: int,
        key: str,
        number: int,
        folder: str,
        source: ImageSource,
        training: bool,
        position: int | None,
    ) -> Snapshot:
        inputs, meta = pass_.inputs[index], pass_.samples[index].metainfo
        path = image_path(meta)
        placement = _placement(inputs, meta, training, source)
        image = rebuild = partial(rebuild_image, inputs, getattr(model, 'data_preprocessor', None), placement)
        is_file = path is not None and not training
        if is_file:
            read = partial(read_image, path, placement.image_size, source.backend_args, rebuild)
            decoded = self.decoded.get(path)
            image = read if decoded is None or decoded.shape[:2] != placement.image_size else lambda: decoded
        return Snapshot(
            key,
            path,
            number,
            placement,
            [activation.of_image(index) for activation in pass_.maps]
            + [activation.of_image(0) for maps in pass_.scores[index : index + 1] for activation in maps],
            [activation.of_image(index) for activation in pass_.attention],
            ignored=ignored_boxes(pass_.samples[index]),
            image=image,
            is_file=is_file,
            dataset_meta=source.dataset_meta,
            folder=folder,
            position=position,
        )


def numbered_folder(folder: str, number: int) -> str:
    """Return the subfolder of the n-th round of the same kind: ``test_2``, or ``epoch_3_2`` of a validation."""
    return folder if number < 2 else f'{folder or "test"}_{number}'


def average_snapshots(snapshots: Sequence[Snapshot], align: str) -> Snapshot:
    """Return the mean over passes of the heatmaps of each level that all passes have; a cell is one image pixel.

    A pixel has the mean over the passes whose pipelines did not crop it away, or NaN without any. A pass in which the
    level has no finite value does not count; without another one, the mean is 0.
    """
    size, averaged = snapshots[0].placement.image_size, []
    whole_image = identity_placement(size, size)
    unseen = ~np.any([snapshot.placement.seen for snapshot in snapshots], axis=0)
    for level in snapshots[0].levels:
        found, total, count = 0, np.zeros(size), np.zeros(size, int)
        for snapshot in snapshots:
            for other in snapshot.levels:
                if other.name == level.name:
                    found += 1
                    grid = Grid(other.values.shape, other.stride, snapshot.placement, align, other.offset)
                    if find_visible_range(other.values, grid) is not None:
                        total += finite_heat(other.values, grid)[0]  # heat is 0 where it was cropped away
                        count += snapshot.placement.seen
        if found == len(snapshots):
            mean = np.where(unseen, np.nan, total / np.maximum(count, 1)).astype(np.float32)
            averaged.append(
                replace(level, stride=(1.0, 1.0), offset=None, values=mean, picked=None, pooled=None, raw=None)
            )
    return replace(snapshots[0], augmentation='mean', placement=whole_image, levels=averaged, attention=())


def _placement(inputs: Tensor, meta: dict, training: bool, source: ImageSource) -> Placement:
    """Return where the image lies in the network's input (C, H, W).

    A training image is the input itself without padding: random crops and mosaics have no place in an original image.
    """
    if not training:
        image = image_path(meta) if source.array is None else source.array
        return placement_from_metas(meta, inputs, match_with_image(image, inputs, source.backend_args))
    input_size = tuple(inputs.shape[1:])
    size = tuple(min(side) for side in zip(meta.get('img_shape', input_size), input_size))
    return identity_placement(size, input_size)
