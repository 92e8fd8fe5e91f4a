"""Draw a run again from its saved maps, without the detector: other colors, ranges, levels and views."""

from __future__ import annotations

import argparse
from dataclasses import replace

from tqdm import tqdm

from mmdet_featviz.cli.options import add_drawing_options, drawing_options, name_filter
from mmdet_featviz.runs.percentiles import run_ranges
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.style import Style

EXAMPLES = """
examples:
  featviz render run_a --out-dir magma --colormap magma --colorbar
  featviz render run_a --out-dir p3 --levels neck_0 --normalize run --save overlay panel
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('run', help="folder of a run with save=('maps',) or ('raw',)")
    parser.add_argument('--out-dir', required=True, help='folder of the pictures')
    parser.add_argument('--images', nargs='+', metavar='KEY', help='only these image keys; * matches any part')
    parser.add_argument('--levels', nargs='+', metavar='LEVEL', help='only these levels, such as neck_0 or backbone_*')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's pictures in --out-dir")
    add_drawing_options(parser, Style)


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        source = Run(args.run)
        style = _style_of(source, args)
        folder = RunFolder(args.out_dir, args.overwrite)
    except (OSError, ValueError, TypeError) as error:
        raise SystemExit(str(error)) from error
    wanted_image, wanted_level = name_filter(args.images), name_filter(args.levels)
    limits = run_ranges(source.paths, style.align) if style.normalize == 'run' else None
    writer = RunWriter(folder, style, source.info_to_copy, limits=limits)
    found = 0
    for snapshot in tqdm(source.snapshots(), total=len(source.paths), unit='image'):
        snapshot = snapshot.with_levels(wanted_level)
        if wanted_image(snapshot.key) and snapshot.levels:
            if not found:
                _check_kept(snapshot, style)
            found += 1
            writer.write(snapshot)
    if not found:
        raise SystemExit('no image or level of the run fits --images and --levels')
    if not writer.outcome.drawn:
        raise SystemExit(writer.summary())
    print(writer.summary())


def _style_of(source: Run, args: argparse.Namespace) -> Style:
    """The run's own style with the options of the command line."""
    style = Style(**{**source.info.get('style', {}), **drawing_options(args, Style)})
    if not hasattr(args, 'save'):
        style = replace(style, save=style.pictures or ('overlay',))
    return style


def _check_kept(snapshot: Snapshot, style: Style) -> None:
    """Raise SystemExit where a view needs what the run did not keep."""
    levels = [*snapshot.levels, *snapshot.attention]
    for kind, part in (('channels', 'picked'), ('attention', 'pooled')):
        if kind in style.save and not any(getattr(level, part) or level.raw is not None for level in levels):
            raise SystemExit(f"the run kept nothing to draw {kind} from: run again with save=('raw',)")
