"""Entry point of ``python -m mmdet_featviz COMMAND``."""

from mmdet_featviz.cli import main

if __name__ == '__main__':
    main()
