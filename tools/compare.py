"""The command ``featviz compare``."""

from mmdet_featviz.cli import main

if __name__ == '__main__':
    main('compare')
