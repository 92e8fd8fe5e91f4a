"""Explanation evaluation: measures methods on the detections in a data set, and writes figures, tables and curves."""

from __future__ import annotations

import json
import os
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from mmengine.dataset import BaseDataset
from torch import nn
from tqdm import tqdm

from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.evaluation.explanation_plot import plot_curves
from mmdet_featviz.evaluation.explanation_scores import Protocol, score_explanations
from mmdet_featviz.evaluation.explanation_summary import mean_curves, summarize, summary_table, to_csv
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.run_info import read_run_info, to_json, weights_checksum
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.utils.messages import count_noun
from mmdet_featviz.version import __version__

FILES = 'boxes.csv', 'summary.csv', 'summary.json', 'summary.md', 'curves.png'


def evaluate_explanations(
    model: nn.Module,
    dataset: BaseDataset,
    out_dir: str | os.PathLike,
    protocol: Protocol | None = None,
    max_boxes: int = 100,
    overwrite: bool = False,
    resume: bool = False,
    info: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure how well methods explain the detections in a data set.

    Images come in random order, always the same for a seed, until there are enough boxes. Each finished image is kept,
    so that a run that was stopped can be resumed. Written are ``boxes.csv`` (a row per box and method),
    ``summary.csv``, ``summary.json`` (with the curves), ``summary.md`` and ``curves.png``.

    Args:
        model: The detector.
        dataset: Samples as in a test, with ground truth.
        out_dir: Folder for the results.
        protocol: Methods, targets, steps and seed. Default: those of :class:`Protocol`.
        max_boxes: Largest number of boxes.
        overwrite: Whether to replace another run's files.
        resume: Whether to continue a run in the folder.
        info: Further content of ``run.json``, such as config and checkpoint.

    Returns:
        The summary, as :func:`mmdet_featviz.evaluation.explanation_summary.summarize` returns it.

    Raises:
        FileExistsError: If the folder holds another run, and neither `overwrite` nor `resume` is set.
        ValueError: If no detection fits the targets, the run to be resumed had other settings, or a method cannot
            explain the detector.
    """
    protocol = protocol or Protocol()
    folder = RunFolder(os.fspath(out_dir), overwrite, resume)
    settings = json.loads(to_json(dict(**protocol.settings(), max_boxes=max_boxes)))
    weights = weights_checksum(unwrap_detector(model))  # a checkpoint of the same name may have been written anew
    info = dict(version=__version__, weights_crc32=weights, evaluation=settings, **(info or {}))
    if resume:
        _check_same(read_run_info(get_storage(folder.out_dir)), info, folder.out_dir)
    folder.take(info)
    try:
        known = {entry['position']: entry['evaluated'] for entry in _entries(folder.out_dir)}
        rows = [row for of_image in _rows(model, dataset, protocol, max_boxes, known, folder) for row in of_image]
        if not rows:
            raise ValueError(
                f'no detection in {count_noun(len(dataset), "image")} fits the targets {protocol.targets!r}'
            )
        return _write_summary(folder, rows, protocol)
    finally:
        folder.flush()
        folder.release()


def _entries(out_dir: str) -> Iterator[dict[str, Any]]:
    return (entry for entry in read_entries(get_storage(out_dir)) if 'evaluated' in entry)


def _check_same(before: dict, now: dict, out_dir: str) -> None:
    if before and 'evaluation' not in before:
        raise ValueError(f'{out_dir!r} holds a run that evaluates no explanations: choose another folder')
    old, new = ({**info.get('evaluation', {}), **info, 'evaluation': None} for info in (before, now))
    for name in new if before else ():
        if old.get(name) != new[name]:
            raise ValueError(
                f'{out_dir!r} was evaluated with other settings ({name} was {old.get(name)!r} and is {new[name]!r} '
                'now): set overwrite=True (--overwrite) to replace it, or choose another folder'
            )


def _rows(
    model: nn.Module,
    dataset: BaseDataset,
    protocol: Protocol,
    max_boxes: int,
    known: Mapping[int, list],
    folder: RunFolder,
) -> Iterator[list[dict[str, Any]]]:
    """Iterate over the results of images until there are enough boxes; results of a stopped run are used again."""
    left = max_boxes
    names = class_names(getattr(model, 'dataset_meta', None))
    with tqdm(total=max_boxes, unit='box', disable=None) as progress:
        for position in np.random.default_rng(protocol.seed).permutation(len(dataset)).tolist():
            if not left:
                return
            if position not in known:
                rows = _score(model, dataset[position], names, protocol, left)
                folder.record([dict(position=position, evaluated=rows, files=[])])
            else:
                rows = known[position]
            boxes = len(rows) // len(protocol.methods)
            left -= boxes
            progress.update(boxes)
            yield rows


def _score(
    model: nn.Module, sample: Mapping[str, Any], names: Sequence[str], protocol: Protocol, most: int
) -> list[dict[str, Any]]:
    batch = DetectorBatch(unwrap_detector(model), {key: [value] for key, value in sample.items()}, protocol.layers)
    (rows,) = score_explanations(batch, names, protocol, most)
    image = image_path(sample['data_samples'].metainfo)
    return [dict(image=image, **row) for row in rows]


def _write_summary(folder: RunFolder, rows: Sequence[dict], protocol: Protocol) -> list[dict[str, Any]]:
    summary, curves = summarize(rows, protocol.seed), mean_curves(rows, protocol.seed)
    boxes, images = len(rows) // len(protocol.methods), len({row['image'] for row in rows})
    contents = (
        to_csv(rows).encode(),
        to_csv(summary).encode(),
        to_json(dict(boxes=boxes, images=images, summary=summary, curves=curves)).encode(),
        summary_table(summary, boxes, images).encode(),
        plot_curves(curves),
    )
    for name, content in zip(FILES, contents):
        folder.write(name, content)
    folder.record([dict(files=list(FILES))])
    return summary
