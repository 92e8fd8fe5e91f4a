"""Draw a run again from its saved maps, without a model: other colours, other ranges, other views."""

import argparse
from dataclasses import replace

from cli import add_drawing_options, drawing_options, fits
from tqdm import tqdm

from mmdet_featviz.runs import Run, RunWriter, run_ranges
from mmdet_featviz.sinks import FileSink
from mmdet_featviz.style import Style


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help="folder of a run with save=('maps',) or ('raw',)")
    parser.add_argument('--out-dir', required=True, help='folder of the pictures')
    parser.add_argument('--images', nargs='+', metavar='KEY', help='only these image keys; * stands for any part')
    parser.add_argument('--levels', nargs='+', metavar='LEVEL', help='only these levels, such as neck_0 or backbone_*')
    parser.add_argument('--overwrite', action='store_true', help="replace another run's pictures in --out-dir")
    style = parser.add_argument_group('style', 'What is not given is as the run itself drew it.')
    add_drawing_options(style, Style)
    return parser.parse_args()


def style_of(run, args):
    """The run's own style with the options of the command line."""
    style = Style(**{**run.facts.get('style', {}), **drawing_options(args, Style)})
    if not hasattr(args, 'save'):
        style = replace(style, save=style.pictures or ('overlay',))
    return style


def check_kept(snapshot, style):
    """Raise SystemExit where a view needs what the run did not keep."""
    levels = [*snapshot.levels, *snapshot.attention]
    for kind, part in (('channels', 'picked'), ('attention', 'pooled')):
        if kind in style.save and not any(getattr(level, part) or level.raw is not None for level in levels):
            raise SystemExit(f"the run kept nothing to draw {kind} from: run again with save=('raw',)")


def main():
    args = parse_args()
    try:
        run = Run(args.run)
        style = style_of(run, args)
        sink = FileSink(args.out_dir, args.overwrite)
    except (OSError, ValueError, TypeError) as error:
        raise SystemExit(str(error)) from error
    wanted_image, wanted_level = fits(args.images), fits(args.levels)
    limits = run_ranges(run.paths, style.align) if style.normalize == 'run' else None
    writer = RunWriter(sink, style, run.facts_to_pass_on, limits=limits)
    found = 0
    for snapshot in tqdm(run.snapshots(), total=len(run.paths), unit='image'):
        snapshot = snapshot.only(wanted_level)
        if wanted_image(snapshot.key) and snapshot.levels:
            if not found:
                check_kept(snapshot, style)
            found += 1
            writer.write(snapshot)
    if not found:
        raise SystemExit('no image or level of the run fits --images and --levels')
    if not writer.tally.drawn:
        raise SystemExit(writer.summary())
    print(writer.summary())


if __name__ == '__main__':
    main()
