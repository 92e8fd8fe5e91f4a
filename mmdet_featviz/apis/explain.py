"""explain(): why a box is there, or is missing: heatmaps of single detections."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Callable, Mapping, Sequence

import numpy as np
from mmengine.infer import BaseInferencer
from mmengine.structures import BaseDataElement
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.inference import batch_of_one, build_pipeline, check_detector, check_image, naming_unreadable
from mmdet_featviz.apis.snapshot_builder import ImageSource, SnapshotBuilder
from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.explanation import LOOK, Explanation, explanation_of
from mmdet_featviz.explanation.request import ExplanationRequest
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.style import STYLE_OPTIONS, Style


def explain(
    model: nn.Module | BaseInferencer,
    image: str | os.PathLike | np.ndarray | Mapping[str, Any],
    method: str = 'odam',
    targets: str | int | Sequence[str | int] = 'top 5',
    layers: str | Sequence[str] | None = None,
    of: str = 'score',
    **options: Any,
) -> list[Explanation]:
    """Explain detections in one image: which parts of the image their score or box rests on.

    Args:
        model: A detector from ``mmdet.apis.init_detector``, or a ``DetInferencer``.
        image: Path or URL of the image, the image itself (H, W, 3), BGR as OpenCV reads it, or a sample of a data set
            (a dict with ``inputs`` and ``data_samples``), which may have ground truth.
        method: An explainer in ``mmdet_featviz.EXPLAINERS``: ``odam``, ``layercam``, ``gradcam``, ``gradcam++``,
            ``ssgradcam++``, ``eigencam``, ``ablationcam``, ``drise``, or ``attention`` (of DETRs and mask
            transformers).
        targets: What to explain, one or several of: ``top 5``, ``all``, ``score 0.3`` (at least), ``class dog``; these
            with commas between, such as ``class dog, top 3``; ``gt`` (each ground-truth box, found or missed, by the
            candidate that fits it best); ``box LEFT TOP RIGHT BOTTOM CLASS`` (a drawn box, in pixels of the image); or
            the number of a detection in order of score, from 0.
        layers: Layers to explain at: module paths or globs. Default: the neck, or the pixel decoder or backbone of
            detectors without a neck. With ``attention``, layers of the decoder; default: its last one.
        of: What of each target: its class ``score``, one side of its box (``left``, ``top``, ``right``, ``bottom``),
            the whole ``box``, or ``both`` score and box.
        **options: Arguments of :class:`mmdet_featviz.Style` such as `colormap`, or of the method such as `masks`.

    Returns:
        The explanations, in the order of the targets, detections by descending score.

    Raises:
        ValueError: If an argument has a wrong value, the image cannot be used, there is no such target, or the method
            cannot explain this detector.
        TypeError: If an argument has a wrong type, or an option does not exist.

    Example:
        >>> model = init_detector('my_config.py', 'my_checkpoint.pth')
        >>> first = explain(model, 'image.jpg', targets='class dog')[0]
        >>> first.score, first.levels, first.heatmap.shape, first.overlay().shape
    """
    detector = check_detector(model, 'explain()')
    array = image if isinstance(image, np.ndarray) else None
    return explain_batch(detector, batch_of(detector, image), method, targets, layers, of, array=array, **options)[0]


def explain_batch(
    model: nn.Module,
    data: Mapping[str, Any],
    method: str = 'odam',
    targets: str | int | Sequence[str | int] = 'top 5',
    layers: str | Sequence[str] | None = None,
    of: str = 'score',
    dataset_meta: dict | None = None,
    array: np.ndarray | None = None,
    keys: ImageKeys | None = None,
    **options: Any,
) -> list[list[Explanation]]:
    """Explain detections in all images of a batch.

    Args:
        model: The detector, or a wrapper around it.
        data: The batch as a data loader returns it: lists ``inputs`` and ``data_samples``.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set. Default: those of the model.
        array: The image of the batch itself, (H, W, 3), BGR, if it was given as an array.
        keys: Gives each image its key. Default: its whole path.

    The other arguments are those of :func:`mmdet_featviz.explain`.

    Returns:
        The explanations of each image. An image without a target has none.

    Raises:
        NoTargetError: If no image has a target.
        TypeError, ValueError: As :func:`mmdet_featviz.explain`.
    """
    style = Style(**{**LOOK, **{name: options.pop(name) for name in STYLE_OPTIONS if name in options}})
    request = ExplanationRequest(method, targets, layers, of, options)
    dataset_meta = dataset_meta or getattr(unwrap_detector(model), 'dataset_meta', None)
    batch = DetectorBatch(model, data, request.layers)
    maps = request.explain(batch, class_names(dataset_meta))
    snapshots = snapshots_of(batch.model, batch.plain_pass, dataset_meta, keys, array)
    explanations: list[list[Explanation]] = [[] for _ in snapshots]
    for target, levels in maps.items():
        explanations[target.image].append(explanation_of(target, method, levels, snapshots[target.image], style))
    return explanations


def snapshots_of(
    model: nn.Module,
    pass_: Pass,
    dataset_meta: dict | None,
    keys: ImageKeys | None = None,
    array: np.ndarray | None = None,
) -> list[Snapshot]:
    """Return a snapshot of each image of a pass."""
    builder, source = SnapshotBuilder(Style.align), ImageSource(keys or ImageKeys(None), None, dataset_meta, array)
    return [builder.build(model, [pass_], index, source)[0] for index in range(len(pass_.samples))]


def batch_of(model: nn.Module, image: Any) -> dict[str, list]:
    """Return a batch of one image, which is given as in :func:`mmdet_featviz.explain`.

    Raises:
        ImageError: If the image is a file that cannot be read.
        ValueError: If it cannot be used otherwise.
    """
    if isinstance(image, Mapping):
        if not {'inputs', 'data_samples'} <= image.keys() or not isinstance(image['data_samples'], BaseDataElement):
            raise ValueError("a sample must be one item of a data set, with 'inputs' and 'data_samples'")
        return {key: [value] for key, value in image.items()}
    image = check_image(image)
    with naming_unreadable(image):
        return batch_of_one(build_pipeline(model, isinstance(image, np.ndarray)), image)


def explain_images(
    images: Sequence[str],
    model: nn.Module,
    writer: RunWriter,
    keys: ImageKeys,
    load: Callable[[str], Any] = str,
    **options: Any,
) -> None:
    """Explain detections in images, and write their pictures and maps.

    Images that cannot be read or explained, and those without a target, are counted in the outcome of the writer.

    Args:
        images: Paths or URLs of the images.
        model: The detector.
        writer: Writes to a run folder, with the look of its style.
        keys: Gives each image its key.
        load: Function from a path to what :func:`mmdet_featviz.explain` takes as an image.
        **options: Further arguments of :func:`mmdet_featviz.explain`.
    """
    style = {name: getattr(writer.style, name) for name in STYLE_OPTIONS}

    def explain_one(image: str) -> dict[int, list[Explanation]]:
        with naming_unreadable(image):
            data = batch_of(model, load(image))
        return dict(enumerate(explain_batch(model, data, keys=keys, **options, **style)))

    for image in tqdm(images, unit='image'):
        writer.explain_and_write({0: image}, partial(explain_one, image))
    writer.finish()
