"""The command ``featviz demo-data``."""

from mmdet_featviz.cli import main

if __name__ == '__main__':
    main('demo-data')
