"""explain(): why a box is there, or is missing: heatmaps of single detections."""

from __future__ import annotations

import difflib
import inspect
import os
from dataclasses import replace
from typing import Any, Callable, Mapping, Sequence

import numpy as np
from mmengine.infer import BaseInferencer
from mmengine.structures import BaseDataElement
from torch import nn
from tqdm import tqdm

from mmdet_featviz.apis.inference import build_pipeline, check_detector, check_image, is_unreadable, without_drawing
from mmdet_featviz.apis.snapshot_builder import ImageSource, SnapshotBuilder
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.explanation.detector_batch import DetectorBatch
from mmdet_featviz.explanation.explanation import Explanation, explained_boxes
from mmdet_featviz.explanation.targets import PARTS, NoTargetError, Selection, Target, is_found, parse_targets
from mmdet_featviz.registry import EXPLAINERS
from mmdet_featviz.runs.explanation_files import write_explanations
from mmdet_featviz.runs.image_keys import ImageKeys
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.utils.arguments import check_choice, check_names
from mmdet_featviz.utils.image_path import image_path
from mmdet_featviz.utils.messages import count_noun, first_names
from mmdet_featviz.visualization.style import STYLE_OPTIONS, Style

# Zero heat has the first color of the color map, and all boxes of an explanation are drawn.
STYLE = dict(normalize='max', boxes='both', score_thr=0.0, save=('overlay',))


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
            ``ssgradcam++``, ``eigencam``, ``ablationcam`` or ``drise``.
        targets: What to explain, one or several of: ``top 5``, ``all``, ``score 0.3`` (at least), ``class dog``; these
            with commas between, such as ``class dog, top 3``; ``gt`` (each ground-truth box, found or missed, by the
            candidate that fits it best); ``box LEFT TOP RIGHT BOTTOM CLASS`` (a drawn box, in pixels of the image); or
            the number of a detection in order of score, from 0.
        layers: Layers to explain at: module paths or globs. Default: the neck, or the pixel decoder or backbone of
            detectors without a neck.
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
    return explain_batch(detector, _batch_of(detector, image), method, targets, layers, of, array=array, **options)[0]


def explain_batch(
    model: nn.Module,
    data: Mapping[str, Any],
    method: str = 'odam',
    targets: str | int | Sequence[str | int] = 'top 5',
    layers: str | Sequence[str] | None = None,
    of: str = 'score',
    dataset_meta: dict | None = None,
    array: np.ndarray | None = None,
    **options: Any,
) -> list[list[Explanation]]:
    """Explain detections in all images of a batch.

    Args:
        model: The detector, or a wrapper around it.
        data: The batch as a data loader returns it: lists ``inputs`` and ``data_samples``.
        dataset_meta: ``classes`` and ``palette`` (RGB) of the data set. Default: those of the model.
        array: The image of the batch itself, (H, W, 3), BGR, if it was given as an array.

    The other arguments are those of :func:`mmdet_featviz.explain`.

    Returns:
        The explanations of each image. An image without a target has none.

    Raises:
        NoTargetError: If no image has a target.
        TypeError, ValueError: As :func:`mmdet_featviz.explain`.
    """
    explainer = get_explainer(method)
    check_choice('of', of, tuple(PARTS))
    style = Style(**{**STYLE, **{name: options.pop(name) for name in STYLE_OPTIONS if name in options}})
    _check_options(method, explainer, options)
    dataset_meta = dataset_meta or getattr(unwrap_detector(model), 'dataset_meta', None)
    selections = parse_targets(targets, of, class_names(dataset_meta))
    layers = None if layers is None else check_names('layers', layers)
    batches = {suppressed: DetectorBatch(model, data, layers, suppressed) for suppressed in (True, False)}
    with without_drawing(model):
        chosen = _choose(selections, batches)
        maps: dict[Target, list[Level]] = {}
        for suppressed, batch in batches.items():
            own = list(dict.fromkeys(target for target, is_suppressed in chosen if is_suppressed == suppressed))
            maps.update(zip(own, explainer(batch, own, **options) if own else []))
    snapshots = _snapshots(batches[chosen[0][1]], dataset_meta, array)
    explanations: list[list[Explanation]] = [[] for _ in snapshots]
    for target in dict.fromkeys(target for target, _ in chosen):
        snapshot = replace(snapshots[target.image], levels=maps[target], boxes=explained_boxes(target))
        explanations[target.image].append(Explanation(target, method, snapshot, style))
    return explanations


def get_explainer(name: str) -> Callable[..., list[list[Level]]]:
    """Look up a registered explainer by name.

    Raises:
        ValueError: If no explainer of this name is registered.
    """
    explainer = EXPLAINERS.get(name) if isinstance(name, str) else None
    if explainer is None:
        names = sorted(EXPLAINERS.module_dict)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
        raise ValueError(f'unknown method {name!r}: {hint}Registered are {", ".join(names)}')
    return explainer


def _check_options(method: str, explainer: Callable, options: Mapping[str, Any]) -> None:
    """Raise TypeError if the method does not take an option."""
    known = list(inspect.signature(explainer).parameters)[2:]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *STYLE_OPTIONS], n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            own = f'{method} takes {", ".join(known)}' if known else f'{method} takes no options'
            raise TypeError(f'unknown option {name!r}: {hint}{own}; the others are those of Style')


def _choose(selections: Sequence[Selection], batches: Mapping[bool, DetectorBatch]) -> list[tuple[Target, bool]]:
    """Return the targets in all images, and whether each is among the detections or the candidates.

    Raises:
        NoTargetError: If there are none.
    """
    chosen, reasons = [], []
    for selection in selections:
        for image, sample in enumerate(batches[True].data['data_samples']):
            found = batches[selection.suppressed].detections[image]
            targets, reason = selection.choose(image, found, sample)
            if targets and targets[0].kind == 'ground truth':
                detections = batches[True].detections[image]
                targets = [replace(target, found=is_found(target, detections)) for target in targets]
            chosen += [(target, selection.suppressed) for target in targets]
            reasons += [] if targets else [f'{image_path(sample.metainfo) or "the image"}: {reason}']
    if not chosen:
        raise NoTargetError('; '.join(reasons))
    return chosen


def _snapshots(batch: DetectorBatch, dataset_meta: dict | None, array: np.ndarray | None) -> list[Snapshot]:
    """Return a snapshot of each image of a batch, without maps."""
    builder, source = SnapshotBuilder(Style.align), ImageSource(ImageKeys(None), None, dataset_meta, array)
    return [builder.build(batch.model, [batch.plain_pass], index, source)[0] for index in range(len(batch))]


def _batch_of(model: nn.Module, image: Any) -> dict[str, list]:
    """Return a batch of one image, which is given as in :func:`mmdet_featviz.explain`."""
    if isinstance(image, Mapping):
        if not {'inputs', 'data_samples'} <= image.keys() or not isinstance(image['data_samples'], BaseDataElement):
            raise ValueError("a sample must be one item of a data set, with 'inputs' and 'data_samples'")
        return {key: [value] for key, value in image.items()}
    image = check_image(image)
    info = dict(img=image, img_id=0) if isinstance(image, np.ndarray) else dict(img_path=image, img_id=0)
    packed = build_pipeline(model, isinstance(image, np.ndarray))(info)
    return {key: [value] for key, value in packed.items()}


def explain_images(
    images: Sequence[str], root: str, model: nn.Module, run_folder: RunFolder, each_level: bool = False, **options: Any
) -> str:
    """Explain detections in images, and write one picture for each.

    Images that cannot be read, and those without a target, are skipped.

    Args:
        images: Paths or URLs of the images.
        root: Folder that their keys are relative to.
        model: The detector.
        run_folder: Folder that the pictures are written to.
        each_level: Whether to also write a picture of each level, if several have heat.
        **options: Arguments of :func:`mmdet_featviz.explain`.

    Returns:
        One line: numbers of pictures and images, and the images that were skipped.

    Raises:
        NoTargetError: If no image has a target.
        TypeError, ValueError: As :func:`mmdet_featviz.explain`.
    """
    keys, pictures, skipped, reason = ImageKeys(root), 0, [], None
    for image in tqdm(images, unit='image'):
        try:
            explanations = explain(model, image, **options)
            pictures += write_explanations(run_folder, keys.key_of(image), explanations, each_level)
        except NoTargetError as error:
            skipped, reason = [*skipped, image], error
        except Exception as error:  # mmcv's loading and the file backends raise errors of many types
            if not is_unreadable(image):
                raise
            skipped, reason = [*skipped, image], NoTargetError(f'{image} cannot be read ({error})')
    run_folder.flush()
    run_folder.release()
    if not pictures and reason is not None:
        raise reason
    done = f'{count_noun(pictures, "picture")} of {count_noun(len(images) - len(skipped), "image")}'
    without = f'; skipped: {count_noun(len(skipped), "image")} ({first_names(skipped)}), {reason}' if skipped else ''
    return f'{done} in {run_folder.out_dir}{without}'
