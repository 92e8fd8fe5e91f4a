"""The command ``featviz evaluate-explanations``."""

from mmdet_featviz.cli import main

if __name__ == '__main__':
    main('evaluate-explanations')
