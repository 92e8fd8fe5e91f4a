"""Draw a run again from its saved maps, without the detector: other colors, ranges, levels and kinds of pictures.

Options that are not given are those of the run.
"""

from __future__ import annotations

import argparse
import os.path as osp
from dataclasses import replace
from functools import partial
from typing import Any, Sequence

import torch
from tqdm import tqdm

from mmdet_featviz.capture.channel_selection import ChannelError, choose_channels, parse_channel_choice
from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.cli.options import add_drawing_options, drawing_options
from mmdet_featviz.explanation.explanation import LOOK
from mmdet_featviz.runs.component_fit import check_foreground, fit_run, needs_components, views_with
from mmdet_featviz.runs.explanation_files import FOLDER, load_explanation
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.runs.run_folder import RunFolder, check_apart
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.boxes import class_names, find_label
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.utils.name_filter import name_filter
from mmdet_featviz.visualization.style import BOX_FEATURES, EMBEDDINGS, RECEPTIVE_FIELD, Style

USAGE = 'RUN --out-dir DIR [options]'
EXAMPLES = """
examples:
  featviz render run_a --out-dir magma --colormap magma --colorbar
  featviz render run_a --out-dir neck_0 --levels neck_0 --normalize run --save overlay panel
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', metavar='RUN', help='Folder of a run that saved maps (--save maps or raw).')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='Folder for the pictures.')
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='KEY',
        help='Only images with these keys; * matches any characters. Default: all.',
    )
    parser.add_argument(
        '--levels',
        nargs='+',
        metavar='LEVEL',
        help='Only these levels, such as neck_0 or backbone_*; explanations are called explain. Default: all.',
    )
    parser.add_argument('--overwrite', action='store_true', help="Replace another run's pictures in DIR.")
    add_drawing_options(parser, Style, show_defaults=False)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        source = Run(args.run)
        check_apart(args.out_dir, source.root)
        style = _style_of(source, args)
        folder = RunFolder(args.out_dir, args.overwrite)
    except (OSError, ValueError, TypeError) as error:
        raise SystemExit(str(error)) from error
    is_image_wanted, is_level_wanted = name_filter(args.images), name_filter(args.levels)
    reduction = source.info.get('reduction')
    fit = fit_run(style, source.paths, source.root) if needs_components(style, reduction) else None
    views = views_with(style, source.paths, fit.components if reduction == PCA else None)
    writer = RunWriter(folder, style, source.info_to_copy, views=views, fit=fit)
    drawn = 0

    def load(path: str) -> list[Snapshot]:
        nonlocal drawn
        snapshot = load_with_image(path, source.info).with_levels(is_level_wanted)
        snapshot = _of_classes(snapshot, style.classes)
        if not is_image_wanted(snapshot.key) or not snapshot.levels:
            return []
        if not drawn:
            _check_saved(snapshot, style, hasattr(args, 'channels'))
        drawn += 1
        return [snapshot]

    for path in tqdm(source.paths, unit='image'):
        writer.build_and_write(osp.dirname(path), partial(load, path))
    look = replace(style, **{**LOOK, 'normalize': _normalize_of(args)})
    wanted = [key for key in source.explanations if is_level_wanted(FOLDER) and is_image_wanted(key)]
    for key in wanted:
        paths = source.explanations[key]
        writer.explain_and_write(
            {0: key}, lambda paths=paths: {0: [load_explanation(path, source.info, look) for path in paths]}
        )
    drawn += len(wanted)
    writer.finish()
    if not drawn and not writer.outcome.skipped:
        raise SystemExit('--images and --levels match nothing: manifest.jsonl of the run lists keys, layers and levels')
    if not len(writer.outcome.drawn):
        raise SystemExit(writer.summary())
    print(writer.summary())


def _style_of(source: Run, args: argparse.Namespace) -> Style:
    """Return the style of the run, changed by the options of the command line.

    Raises:
        TypeError, ValueError: If an option has a wrong value, or a class does not exist.
    """
    style = Style(**{**source.info.get('style', {}), **drawing_options(args, Style)})
    if not hasattr(args, 'save'):
        style = replace(style, save=[kind for kind in style.pictures if kind != RECEPTIVE_FIELD] or 'overlay')
    if RECEPTIVE_FIELD in style.save:
        raise ValueError('receptive fields are found in the detector, not in saved maps: see featviz layers')
    if BOX_FEATURES in style.save:
        raise ValueError(f'{BOX_FEATURES} are not in saved maps: run the detector again with --save {BOX_FEATURES}')
    check_foreground(style, source.info.get('reduction'))
    names = class_names(source.info.get('dataset_meta'))
    for name in style.classes or ():
        find_label(name, names)
    return style


def _of_classes(snapshot: Snapshot, classes: Sequence[str] | None) -> Snapshot:
    """Return a copy with the score maps of these classes, given by name or index, and all other levels."""
    if classes is None:
        return snapshot
    names = class_names(snapshot.dataset_meta)
    labels = [find_label(name, names) for name in classes]
    levels = [level for level in snapshot.levels if level.label is None or level.label in labels]
    return replace(snapshot, levels=levels)


def _normalize_of(args: argparse.Namespace) -> Any:
    """Return the value range of explanations; that of the run is for activation maps."""
    given = getattr(args, 'normalize', 'run')
    return LOOK['normalize'] if given == 'run' else given


def _check_saved(snapshot: Snapshot, style: Style, has_choice: bool) -> None:
    """Raise SystemExit if the run did not save what a kind of picture or a choice of channels needs."""
    levels = [*snapshot.levels, *snapshot.attention]
    for kind, part in (('channels', 'picked'), ('attention', 'pooled')):
        if kind in style.save and not any(getattr(level, part) or level.raw is not None for level in levels):
            raise SystemExit(f'the run saved nothing to draw {kind} from: repeat it with --save raw')
    if EMBEDDINGS in style.save and all(level.compact is None for level in levels):
        raise SystemExit('the run saved no features to embed: repeat it with --save embeddings or --reduction pca')
    if 'scores' in style.save and all(level.score_of is None for level in levels):
        raise SystemExit('the run saved no class-score maps: repeat it with --save scores maps')
    if 'channels' not in style.save or not has_choice:
        return
    if not any(level.raw is not None for level in levels):
        raise SystemExit(
            'the run saved only the channels that it drew, so --channels has no effect: repeat it with --save raw'
        )
    try:
        for level in snapshot.levels:
            if level.score_of is None:
                choose_channels(parse_channel_choice(style.channels), torch.zeros(level.channels), level.name)
    except ChannelError as error:
        raise SystemExit(str(error)) from error
