"""The command ``featviz explain``."""

from mmdet_featviz.cli import main

if __name__ == '__main__':
    main('explain')
