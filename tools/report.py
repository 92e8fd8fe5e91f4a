"""Write a page on which a run can be looked through in a browser, from its saved maps."""

import argparse

from mmdet_featviz.report import Report
from mmdet_featviz.runs import Run


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help="folder of a run with save=('maps',); the page becomes RUN/report/index.html")
    parser.add_argument('--compare', metavar='RUN_B', help='a second run, shown beside the first on one scale')
    parser.add_argument('--max-images', type=int, metavar='N', help='only the first N images')
    args = parser.parse_args()
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images: at least 1')
    return args


def main():
    args = parse_args()
    try:
        other = Run(args.compare) if args.compare is not None else None
        report = Report(Run(args.run), other, args.max_images)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    report.write()
    print(report.summary())


if __name__ == '__main__':
    main()
